import type { Kysely } from 'kysely';
import { z } from 'zod';
import { findBackTest, noteFound, RULE_BACK_TEST } from '../src/automation/back-test.store.js';
import { backTest } from '../src/automation/rule.back-test.js';
import type { Backend } from '../src/backend.js';
import type { Database } from '../src/database/database.js';
import { pause } from '../src/pause.js';
import { describeError, isOfTheSurroundings } from './runtime/failures.js';
import type { JobKind } from './runtime/job-runner.js';

const payloadSchema = z.strictObject({ id: z.string() });

/** How long it works before it rests (ms): what a reply may have to wait for it. */
const WORK_MS = 8;
/** How long it rests for each millisecond of work, while commands are in flight and while none are. */
const RESTS = { busy: 4, idle: 1 } as const;
/** How often its progress is written (ms). */
const TELL_MS = 1_000;

/**
 * Runs back-tests in small steps with rests between them, so that commands in the same process hardly wait for them: each takes half of a
 * processor at most, and a fifth while commands are in flight. A back-test that was interrupted begins again.
 */
export function runBackTests(parts: Pick<Backend, 'store' | 'keys' | 'transactor'> & { readonly database: Kysely<Database> }): JobKind {
  const { store, keys, transactor, database } = parts;
  return {
    kind: RULE_BACK_TEST,
    backoff: { first: 1_000, longest: 60_000 },
    places: { atOnce: 2, inHand: 2 },
    async handle({ organizationId, payload }, signal) {
      const { id } = payloadSchema.parse(payload);
      const test = await findBackTest(database, organizationId, id);
      if (test?.status !== 'running') return 'done';
      let began = performance.now();
      let told = began;
      try {
        const found = await backTest({ store, keys }, organizationId, test, signal, async (so) => {
          const now = performance.now();
          if (now - told > TELL_MS) {
            told = now;
            await noteFound(database, organizationId, id, so(), { status: 'running' });
          }
          if (now - began < WORK_MS) return;
          await pause((now - began) * (transactor.inFlight > 0 ? RESTS.busy : RESTS.idle), signal);
          began = performance.now();
        });
        await noteFound(database, organizationId, id, found, { status: 'done' });
      } catch (error) {
        if (signal.aborted) return { againInMs: 0, because: 'the process ended' };
        if (isOfTheSurroundings(error)) throw error;
        const none = { looked: test.looked, matched: test.matched, actions: test.actions, matches: test.matches };
        await noteFound(database, organizationId, id, none, { status: 'failed', error: describeError(error) });
      }
      return 'done';
    },
  };
}
