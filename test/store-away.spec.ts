import { isOfTheSurroundings } from '../projections/runtime/failures.js';
import { isPassing } from '../src/cli/dialogue-import.js';
import { ThreadlogError } from '../src/errors.js';
import { OutcomeUnknown, StoreUnavailable } from '../src/event-store/event-store.js';
import { isStoreAway } from '../src/store-away.js';

const withCode = (code: string, message = 'as PostgreSQL or Node says it') => Object.assign(new Error(message), { code });

// What the API answers with store_unavailable, what an import waits for, and what no event is blamed for.
test.each<[string, unknown, { away: boolean; passing: boolean; surroundings: boolean }]>([
  ['a log that cannot be reached', new StoreUnavailable('cut'), { away: true, passing: true, surroundings: true }],
  ['a broken session', withCode('08006'), { away: true, passing: true, surroundings: true }],
  ['too many connections', withCode('53300'), { away: true, passing: true, surroundings: true }],
  ['a shutdown', withCode('57P01'), { away: true, passing: true, surroundings: true }],
  ['a refused connection', withCode('ECONNREFUSED'), { away: true, passing: true, surroundings: true }],
  ['a name that is not found now', withCode('EAI_AGAIN'), { away: true, passing: true, surroundings: true }],
  [
    'a connection that ended without a code',
    new Error('Connection terminated unexpectedly'),
    { away: true, passing: true, surroundings: true },
  ],
  ['an append whose outcome is not known', new OutcomeUnknown('late'), { away: false, passing: true, surroundings: true }],
  ['a deadlock', withCode('40P01'), { away: false, passing: false, surroundings: true }],
  ['too many open files', withCode('EMFILE'), { away: false, passing: false, surroundings: true }],
  [
    'work that was stopped',
    Object.assign(new Error('stopped'), { name: 'AbortError' }),
    { away: false, passing: false, surroundings: true },
  ],
  ['a violated constraint', withCode('23505'), { away: false, passing: false, surroundings: false }],
  ['an error that says nothing', new Error('timeouts are set too low'), { away: false, passing: false, surroundings: false }],
  ['no error', 'ECONNREFUSED', { away: false, passing: false, surroundings: false }],
  ['the answer of a command', new ThreadlogError('concurrent_changes'), { away: false, passing: true, surroundings: false }],
  [
    'the word of a reader that a store is away',
    new ThreadlogError('store_unavailable'),
    { away: false, passing: true, surroundings: true },
  ],
  ['a refusal', new ThreadlogError('not_found'), { away: false, passing: false, surroundings: false }],
])('%s', (_, error, expected) => {
  expect({ away: isStoreAway(error), passing: isPassing(error), surroundings: isOfTheSurroundings(error) }).toEqual(expected);
});
