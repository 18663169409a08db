import fc from 'fast-check';
import { decode } from '../../src/event-store/aggregate.js';
import { type EventStore, parseStreamName } from '../../src/event-store/event-store.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import type { CommandContext } from '../../src/commands/command-context.js';
import { Transactor } from '../../src/commands/transactor.js';
import { InboxWriter } from '../../src/inboxes/inbox.commands.js';
import { inboxAggregate, type InboxEvent } from '../../src/inboxes/inbox.js';
import {
  changeDefaultInbox,
  createOrganization,
  organizationAggregate,
  type OrganizationEvent,
} from '../../src/organizations/organization.js';
import { systemClock } from '../../src/clock.js';
import { ThreadlogError } from '../../src/errors.js';
import { randomIds } from '../../src/ids.js';
import { AssigneeReader } from '../../src/team/assignee.reader.js';
import { everything, Killed, killedAtAppend, ProcessStore } from '../support/process-store.js';
import { seededRandom } from '../support/seeded-random.js';

/*
 * The default inbox is the organization's, whether an inbox is archived is the inbox's own: two streams, which no transaction spans. Here
 * processes race over both of them and are killed in between.
 */

const transactorOf = (store: EventStore) =>
  new Transactor(store, systemClock, randomIds, { find: () => Promise.resolve(undefined), save: () => Promise.resolve() });

/** A process of its own: nothing is shared with others but the log. */
function startProcess(store: EventStore): InboxWriter {
  const transactor = transactorOf(store);
  return new InboxWriter(transactor, new AssigneeReader(transactor));
}

const command = (): CommandContext => ({
  organizationId: 'org',
  actor: { type: 'apiKey', id: 'key' },
  commandId: randomIds.next(),
  requestHash: 'hash',
  correlationId: 'request',
});

async function codeOf(run: Promise<unknown>): Promise<string> {
  try {
    await run;
  } catch (error) {
    if (error instanceof ThreadlogError) return error.code;
    throw error;
  }
  return 'done';
}

/** An organization with the inboxes `a`, which is the default, `b` and `c`. */
async function organization(): Promise<MemoryEventStore> {
  const store = new MemoryEventStore();
  const transactor = transactorOf(store);
  await transactor.transact(organizationAggregate, 'org', command(), createOrganization('Acme'));
  for (const id of ['a', 'b', 'c']) await startProcess(store).create(command(), id, { name: id }, false);
  await transactor.transact(organizationAggregate, 'org', command(), changeDefaultInbox('a', 0));
  return store;
}

/** Folds the log event by event: at no moment may the default inbox be an archived one. */
async function assertDefaultIsThere(store: EventStore): Promise<{ defaultInboxId: string | null; archived: Set<string> }> {
  let org = organizationAggregate.initial;
  const archived = new Set<string>();
  for (const stored of await everything(store)) {
    const { kind, id } = parseStreamName(stored.stream)!;
    if (kind === 'organization') org = organizationAggregate.evolve(org, decode<OrganizationEvent>(organizationAggregate.codec, stored));
    if (kind === 'inbox') {
      const { type } = decode<InboxEvent>(inboxAggregate.codec, stored);
      if (type === 'InboxArchived') archived.add(id);
      if (type === 'InboxUnarchived') archived.delete(id);
    }
    const { defaultInboxId } = org;
    if (defaultInboxId !== null && archived.has(defaultInboxId)) throw new Error(`the default inbox ${defaultInboxId} is archived`);
  }
  return { defaultInboxId: org.defaultInboxId, archived };
}

test('an inbox that is back from the archive may become the default, as often as it goes and comes', async () => {
  const store = await organization();
  const inboxes = startProcess(store);
  for (let round = 0; round < 3; round++) {
    await inboxes.archive(command(), 'b');
    expect(await codeOf(inboxes.change(command(), 'b', {}, true))).toBe('resource_archived');
    await inboxes.unarchive(command(), 'b');
    expect(await inboxes.change(command(), 'b', {}, true)).toMatchObject({ isDefault: true });
    expect(await codeOf(inboxes.archive(command(), 'b'))).toBe('default_inbox_required');
    await inboxes.change(command(), 'a', {}, true);
  }
  const before = (await everything(store)).length;
  expect(await inboxes.unarchive(command(), 'b')).toMatchObject({ outcome: 'unchanged', isDefault: false });
  expect(await codeOf(inboxes.unarchive(command(), 'nobody'))).toBe('not_found');
  expect((await everything(store)).length).toBe(before);
  await assertDefaultIsThere(store);
});

test('an archiving that was overtaken by a return and a choice as the default is refused', async () => {
  const store = await organization();
  await startProcess(store).archive(command(), 'b');
  await startProcess(store).unarchive(command(), 'b');
  const quick = startProcess(store);
  let met = false;
  // Stands still after it has told the organization, while the others end what it is about to do and undo it.
  const slow = startProcess(
    new ProcessStore(store, (stream) => {
      if (!stream.startsWith('inbox-') || met) return undefined;
      met = true;
      return {
        before: async () => {
          await quick.archive(command(), 'b');
          await quick.unarchive(command(), 'b');
          await quick.change(command(), 'b', {}, true);
        },
      };
    }),
  );
  expect(await codeOf(slow.archive(command(), 'b'))).toBe('default_inbox_required');
  expect(await assertDefaultIsThere(store)).toMatchObject({ defaultInboxId: 'b' });
});

test('a return that is slow to tell the organization takes nothing from an archiving that has begun since', async () => {
  const store = await organization();
  await startProcess(store).archive(command(), 'b');
  const codes: string[] = [];
  // Once it has told the organization, and before it archives: the return goes on, and the inbox is chosen as the default.
  const archiving = startProcess(
    new ProcessStore(store, (stream) =>
      stream.startsWith('inbox-')
        ? {
            before: async () => {
              goOn();
              await returned;
              codes.push(await codeOf(startProcess(store).change(command(), 'b', {}, true)));
            },
          }
        : undefined,
    ),
  );
  let goOn = () => {};
  const told = new Promise<void>((resolve) => (goOn = resolve));
  let archived: Promise<string> | undefined;
  const returning = startProcess(
    new ProcessStore(store, (stream) =>
      stream.startsWith('organization-')
        ? {
            before: async () => {
              archived = codeOf(archiving.archive(command(), 'b'));
              await told;
            },
          }
        : undefined,
    ),
  );
  const returned = returning.unarchive(command(), 'b');
  await returned;
  expect(await archived).toBe('done');
  expect(codes).toEqual(['resource_archived']);
  expect((await assertDefaultIsThere(store)).defaultInboxId).toBe('a');
});

test.each([1, 2])('killed after append %i of a return, it is completed by the next request for it', async (n) => {
  const store = await organization();
  await startProcess(store).archive(command(), 'b');
  expect(await killedAtAppend(store, n, true, (own) => startProcess(own).unarchive(command(), 'b'))).toBe(true);
  const inboxes = startProcess(store);
  await inboxes.unarchive(command(), 'b');
  expect(await inboxes.change(command(), 'b', {}, true)).toMatchObject({ isDefault: true });
  await assertDefaultIsThere(store);
});

const action = fc.record({
  do: fc.constantFrom('archive' as const, 'unarchive' as const, 'default' as const, 'rename' as const),
  id: fc.constantFrom('a', 'b', 'c'),
  process: fc.nat(2),
});

test('whatever races and whoever is killed: the default inbox is never an archived one, and any that is there can be it', async () => {
  let killed = 0;
  let refusals = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(action, { minLength: 6, maxLength: 30, size: 'max' }),
      fc.nat(),
      fc.constantFrom(0, 0, 0.1),
      async (actions, seed, deadly) => {
        const store = await organization();
        const chances = seededRandom(seed);
        const pause = async () => {
          for (let ticks = chances.int(6); ticks > 0; ticks--) await new Promise((resolve) => setImmediate(resolve));
        };
        const start = () => {
          const own: ProcessStore = new ProcessStore(
            store,
            () => {
              if (chances.int(1_000) >= deadly * 1_000) return undefined;
              const kill = () => {
                own.dead = true;
                throw new Killed();
              };
              return chances.int(2) === 0 ? { before: kill } : { after: kill };
            },
            pause,
          );
          return { own, inboxes: startProcess(own) };
        };
        const processes = [start(), start(), start()];
        await Promise.all(
          actions.map(async ({ do: verb, id, process: which }, index) => {
            await pause();
            if (processes[which]!.own.dead) processes[which] = start();
            const { inboxes } = processes[which]!;
            const run = {
              archive: () => inboxes.archive(command(), id),
              unarchive: () => inboxes.unarchive(command(), id),
              default: () => inboxes.change(command(), id, {}, true),
              rename: () => inboxes.change(command(), id, { name: `name ${index}` }, undefined),
            }[verb];
            try {
              await run();
            } catch (error) {
              if (error instanceof Killed) killed++;
              else if (error instanceof ThreadlogError) refusals++;
              else throw error;
            }
          }),
        );
        await assertDefaultIsThere(store);
        // Whatever was left half done: asked to come back, each can become the default, and the others can go.
        const last = startProcess(store);
        for (const id of ['a', 'b', 'c']) {
          const { archived, defaultInboxId } = await assertDefaultIsThere(store);
          // One whose archiving ended half way is archived first: only that tells it from one that is under way.
          if (!archived.has(id) && defaultInboxId !== id) await last.archive(command(), id);
          await last.unarchive(command(), id);
          expect(await last.change(command(), id, {}, true)).toMatchObject({ isDefault: true });
        }
        await assertDefaultIsThere(store);
      },
    ),
    { numRuns: Number(process.env['DEFAULT_INBOX_RUNS'] ?? 40) },
  );
  // A run that met no crash and no refusal has shown nothing.
  expect(killed).toBeGreaterThan(0);
  expect(refusals).toBeGreaterThan(0);
}, 120_000);
