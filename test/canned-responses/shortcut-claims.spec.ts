import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { CannedResponseWriter } from '../../src/canned-responses/canned-response.commands.js';
import {
  archiveCannedResponse,
  type CannedResponse,
  cannedResponseAggregate,
  type CannedResponseEvent,
  changeCannedResponse,
  createCannedResponse,
  heldShortcut,
  unarchiveCannedResponse,
} from '../../src/canned-responses/canned-response.js';
import { decode } from '../../src/event-store/aggregate.js';
import { type EventStore, parseStreamName, StoreUnavailable } from '../../src/event-store/event-store.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import type { CommandContext } from '../../src/commands/command-context.js';
import { Transactor } from '../../src/commands/transactor.js';
import { systemClock } from '../../src/clock.js';
import { openDatabase, type OpenDatabase } from '../../src/database/database.js';
import { ThreadlogError } from '../../src/errors.js';
import { UnchangedAnswerRows } from '../../src/commands/idempotency.js';
import { randomIds } from '../../src/ids.js';
import { MasterKey } from '../../src/security/sealing.js';
import { VisitorKeys } from '../../src/security/visitor-keys.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { everything, Killed, killedAtAppend, ProcessStore } from '../support/process-store.js';
import { seededRandom } from '../support/seeded-random.js';

let database: TestDatabase;
let open: OpenDatabase;
const master = new MasterKey(randomBytes(32));

beforeAll(async () => {
  database = await createDatabase();
  open = openDatabase({ url: database.url, poolSize: 4, name: 'test', onError: () => undefined });
});
afterAll(async () => {
  await open.close();
  await database.drop();
});

/** A process of its own: nothing is shared with others but the log and the database. */
const startProcess = (store: EventStore) =>
  new CannedResponseWriter(
    new Transactor(store, systemClock, randomIds, new UnchangedAnswerRows(open.kysely)),
    new VisitorKeys(open.kysely, master),
  );

let organizations = 0;
const newOrganization = () => `org${++organizations}`;
const command = (organizationId: string, commandId: string = randomIds.next(), keyed = false): CommandContext => ({
  organizationId,
  actor: { type: 'apiKey', id: 'key' },
  commandId,
  requestHash: 'hash',
  correlationId: 'request',
  ...(keyed ? { keyed: true as const } : {}),
});

const hello = (shortcut = '/hello') => createCannedResponse({ title: 'Greeting', shortcut, content: 'Hi {{visitor.name}}!' });
const moved = (shortcut: string) => changeCannedResponse({ shortcut });

async function codeOf(run: Promise<unknown>): Promise<string> {
  try {
    await run;
  } catch (error) {
    if (error instanceof ThreadlogError) return error.code;
    throw error;
  }
  return 'done';
}

/** Folds the log event by event: at no moment may two responses have one shortcut. Answers who has which in the end. */
async function holders(store: EventStore, organizationId: string): Promise<Map<string, string>> {
  const states = new Map<string, CannedResponse>();
  const held = new Map<string, string>();
  for (const stored of await everything(store)) {
    const { kind, id, organizationId: organization } = parseStreamName(stored.stream)!;
    if (kind !== 'cannedresponse' || organization !== organizationId) continue;
    const event = decode<CannedResponseEvent>(cannedResponseAggregate.codec, stored);
    const state = cannedResponseAggregate.evolve(states.get(id) ?? cannedResponseAggregate.initial, event);
    states.set(id, state);
    for (const [shortcut, owner] of held) if (owner === id) held.delete(shortcut);
    const shortcut = heldShortcut(state);
    if (shortcut === null) continue;
    if (held.has(shortcut)) throw new Error(`${shortcut} is ${held.get(shortcut)}'s and ${id}'s`);
    held.set(shortcut, id);
  }
  return held;
}

async function aWhile(): Promise<void> {
  for (let ticks = 0; ticks < 30; ticks++) await new Promise((resolve) => setImmediate(resolve));
}

const typesIn = async (store: EventStore, kind: string) =>
  (await everything(store)).filter(({ stream }) => stream.startsWith(`${kind}-`)).map(({ type }) => type);

describe('a shortcut', () => {
  const store = new MemoryEventStore();
  let writer: CannedResponseWriter;
  beforeAll(() => {
    writer = startProcess(store);
  });

  test('is one response’s at a time, in whatever letters', async () => {
    const org = newOrganization();
    await writer.write(command(org), 'a', hello('/Hello'));
    expect(await codeOf(writer.write(command(org), 'b', hello('/hELLO')))).toBe('shortcut_taken');
    await writer.write(command(org), 'b', hello('/bye'));
    expect(await codeOf(writer.write(command(org), 'b', moved('/HELLO')))).toBe('shortcut_taken');
    // Other letters of the own shortcut need no claim.
    const claims = await typesIn(store, 'claim');
    await writer.write(command(org), 'a', moved('/hello'));
    expect(await typesIn(store, 'claim')).toEqual(claims);
    expect(await codeOf(writer.write(command(newOrganization()), 'a', hello()))).toBe('done');
    expect(await holders(store, org)).toEqual(
      new Map([
        ['/hello', 'a'],
        ['/bye', 'b'],
      ]),
    );
  });

  test('is free when its response moved on or was archived, and asked for again when it comes back', async () => {
    const org = newOrganization();
    await writer.write(command(org), 'a', hello());
    await writer.write(command(org), 'a', moved('/hi'));
    await writer.write(command(org), 'b', hello());
    await writer.write(command(org), 'a', archiveCannedResponse());
    await writer.write(command(org), 'b', moved('/hi'));
    expect(await codeOf(writer.write(command(org), 'a', unarchiveCannedResponse()))).toBe('shortcut_taken');
    await writer.write(command(org), 'b', archiveCannedResponse());
    await writer.write(command(org), 'a', unarchiveCannedResponse());
    expect(await holders(store, org)).toEqual(new Map([['/hi', 'a']]));
  });

  test('is claimed by nothing that is refused', async () => {
    const org = newOrganization();
    await writer.write(command(org), 'a', hello());
    const before = (await everything(store)).length;
    expect(await codeOf(writer.write({ ...command(org), ifMatch: 3 }, 'a', moved('/x')))).toBe('revision_mismatch');
    expect(await codeOf(writer.write(command(org), 'none', moved('/x')))).toBe('not_found');
    expect(await codeOf(writer.write(command(org), 'a', changeCannedResponse({ shortcut: '/x', content: '{{x}}' })))).toBe(
      'unknown_variable',
    );
    expect(await codeOf(writer.write(command(org), 'b', hello()))).toBe('shortcut_taken');
    expect((await everything(store)).length).toBe(before);
  });
});

describe('races', () => {
  test('of many processes for one shortcut, one wins', async () => {
    for (let round = 0; round < 5; round++) {
      const store = new MemoryEventStore();
      const org = newOrganization();
      await startProcess(store).write(command(org), 'old', hello('/old'));
      const answers = await Promise.all(
        Array.from({ length: 8 }, (_, i) => {
          // Whoever has claimed takes a while, so that the others meet the claim without its response.
          const writer = startProcess(new ProcessStore(store, (stream) => (stream.startsWith('claim-') ? { after: aWhile } : undefined)));
          return codeOf(i === 0 ? writer.write(command(org), 'old', moved('/hello')) : writer.write(command(org), `r${i}`, hello()));
        }),
      );
      expect(answers.filter((code) => code === 'done')).toHaveLength(1);
      expect(answers.filter((code) => code === 'shortcut_taken')).toHaveLength(7);
      expect((await holders(store, org)).has('/hello')).toBe(true);
      // Those who were in flight were waited for.
      expect(await typesIn(store, 'cannedresponse')).not.toContain('ShortcutClaimVoided');
    }
  });

  test('the same command at once in several processes is done once', async () => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    const again = { ...command(org, randomIds.next(), true), thorough: true as const };
    const answers = await Promise.all(Array.from({ length: 6 }, () => startProcess(new ProcessStore(store)).write(again, 'a', hello())));
    expect(new Set(answers.map(({ revision, position }) => `${revision} ${position}`)).size).toBe(1);
    expect(await typesIn(store, 'cannedresponse')).toEqual(['CannedResponseCreated']);
  });

  test('one who stands still between claim and response for longer than others wait has lost', async () => {
    for (const [id, first, decision] of [
      ['slow', undefined, hello()],
      ['slow', hello('/old'), moved('/hello')],
    ] as const) {
      const store = new MemoryEventStore();
      const org = newOrganization();
      if (first !== undefined) await startProcess(store).write(command(org), id, first);
      let arrived = () => {};
      const here = new Promise<void>((resolve) => (arrived = resolve));
      let letGo = () => {};
      const gate = new Promise<void>((resolve) => (letGo = resolve));
      const slow = startProcess(
        new ProcessStore(store, (stream) =>
          stream.startsWith('cannedresponse-')
            ? {
                before: async () => {
                  arrived();
                  await gate;
                },
              }
            : undefined,
        ),
      );
      const late = codeOf(slow.write(command(org), id, decision));
      await here;
      expect(await codeOf(startProcess(store).write(command(org), 'quick', hello()))).toBe('done');
      letGo();
      expect(await late).toBe('shortcut_taken');
      expect((await holders(store, org)).get('/hello')).toBe('quick');
    }
  });
});

describe('a process that is killed', () => {
  const steps = (n: number): [number, boolean][] =>
    [false, true].flatMap((after) => Array.from({ length: n }, (_, i): [number, boolean] => [i + 1, after]));

  test.each(steps(2))(
    'at append %i (after it: %s) of making: the retry completes it, and another gets the shortcut if there was none',
    async (n, after) => {
      for (const retried of [true, false]) {
        const store = new MemoryEventStore();
        const org = newOrganization();
        const asked = { ...command(org, randomIds.next(), true), thorough: true as const };
        expect(await killedAtAppend(store, n, after, (own) => startProcess(own).write(asked, 'a', hello()))).toBe(true);
        const made = n === 2 && after;
        const later = startProcess(store);
        if (retried) {
          expect(await later.write(asked, 'a', hello())).toMatchObject({
            outcome: made ? 'repeated' : 'appended',
            state: { shortcut: '/hello' },
          });
          expect((await holders(store, org)).get('/hello')).toBe('a');
        } else {
          expect(await codeOf(later.write(command(org), 'b', hello()))).toBe(made ? 'shortcut_taken' : 'done');
          expect((await holders(store, org)).get('/hello')).toBe(made ? 'a' : 'b');
          // The first request comes again after all.
          expect(await codeOf(startProcess(store).write(asked, 'a', hello()))).toBe(made ? 'done' : 'shortcut_taken');
          await holders(store, org);
        }
      }
    },
  );

  test.each(steps(3))('at append %i (after it: %s) of moving: nothing is lost, nothing stays taken', async (n, after) => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    await startProcess(store).write(command(org), 'a', hello('/old'));
    // The claim, the response, the release.
    const asked = command(org);
    expect(await killedAtAppend(store, n, after, (own) => startProcess(own).write(asked, 'a', moved('/new')))).toBe(true);
    const later = startProcess(store);
    const done = (await holders(store, org)).has('/new');
    expect(done).toBe(n === 3 || (n === 2 && after));
    expect(await codeOf(later.write(command(org), 'b', hello('/new')))).toBe(done ? 'shortcut_taken' : 'done');
    expect(await codeOf(later.write(command(org), 'c', hello('/old')))).toBe(done ? 'done' : 'shortcut_taken');
    await holders(store, org);
  });

  test('after an end and before the release: the shortcut is free', async () => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    await startProcess(store).write(command(org), 'a', hello());
    expect(await killedAtAppend(store, 1, true, (own) => startProcess(own).write(command(org), 'a', archiveCannedResponse()))).toBe(true);
    expect(await codeOf(startProcess(store).write(command(org), 'b', hello()))).toBe('done');
    expect(await codeOf(startProcess(store).write(command(org), 'a', unarchiveCannedResponse()))).toBe('shortcut_taken');
  });
});

const SHORTCUTS = ['/a', '/b', '/c'];
const IDS = ['r1', 'r2', 'r3'];
const action = fc.record({
  do: fc.constantFrom(
    'create' as const,
    'create' as const,
    'move' as const,
    'move' as const,
    'move' as const,
    'archive' as const,
    'unarchive' as const,
  ),
  id: fc.constantFrom(...IDS),
  shortcut: fc.constantFrom(...SHORTCUTS),
  process: fc.nat(2),
});

test('whatever races and whoever is killed: no moment has two responses with one shortcut, and a free one can be had', async () => {
  let killed = 0;
  let refusals = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(action, { minLength: 4, maxLength: 20, size: 'max' }),
      fc.nat(),
      fc.constantFrom(0, 0.05, 0.15),
      async (actions, seed, deadly) => {
        const store = new MemoryEventStore();
        const org = newOrganization();
        const chances = seededRandom(seed);
        const random = () => chances.int(1_000_000) / 1_000_000;
        const pause = async () => {
          for (let ticks = Math.floor(random() * 4); ticks > 0; ticks--) await new Promise((resolve) => setImmediate(resolve));
        };
        const start = () => {
          const own: ProcessStore = new ProcessStore(
            store,
            () => {
              const chance = random();
              if (chance >= deadly) return undefined;
              const fail = () => {
                // Now and then only the connection breaks, and the command must clean up behind itself.
                if (chance < deadly / 3) throw new StoreUnavailable('cut');
                own.dead = true;
                throw new Killed();
              };
              return chance < deadly * 0.66 ? { before: fail } : { after: fail };
            },
            pause,
          );
          return { own, writer: startProcess(own) };
        };
        const processes = [start(), start(), start()];
        await Promise.all(
          actions.map(async ({ do: verb, id, shortcut, process: which }) => {
            await pause();
            if (processes[which]!.own.dead) processes[which] = start();
            const decision = {
              create: hello(shortcut),
              move: moved(shortcut),
              archive: archiveCannedResponse(),
              unarchive: unarchiveCannedResponse(),
            }[verb];
            try {
              await processes[which]!.writer.write(command(org), id, decision);
            } catch (error) {
              if (error instanceof Killed) killed++;
              else if (error instanceof ThreadlogError) refusals++;
              else throw error;
            }
          }),
        );
        const last = startProcess(store);
        for (const [index, shortcut] of SHORTCUTS.entries()) {
          const holder = (await holders(store, org)).get(shortcut);
          expect(await codeOf(last.write(command(org), `last${index}`, hello(shortcut)))).toBe(
            holder === undefined ? 'done' : 'shortcut_taken',
          );
        }
        await holders(store, org);
      },
    ),
    { numRuns: Number(process.env['CLAIM_RUNS'] ?? 20) },
  );
  // A run that met no crash and no refusal has shown nothing.
  expect(killed).toBeGreaterThan(0);
  expect(refusals).toBeGreaterThan(0);
}, 120_000);
