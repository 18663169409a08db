import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Backend } from '../../src/backend.js';
import { ConversationWriter } from '../../src/conversations/conversation.commands.js';
import { readDialogue } from '../../src/cli/dialogue.js';
import { ConversationImporter, type Imported, isPassing } from '../../src/cli/dialogue-import.js';
import { type EventStore, OutcomeUnknown, StoreUnavailable } from '../../src/event-store/event-store.js';
import { Transactor } from '../../src/commands/transactor.js';
import { changeDefaultInbox, createOrganization, organizationAggregate } from '../../src/organizations/organization.js';
import { systemContext } from '../../src/organizations/organization.writer.js';
import { randomIds } from '../../src/ids.js';
import { VisitorKeys } from '../../src/security/visitor-keys.js';
import { AssigneeReader } from '../../src/team/assignee.reader.js';
import { VisitorWriter } from '../../src/visitors/visitor.writer.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { dialogue, history, openForReading } from './import-file.js';

let database: TestDatabase;
let folder: string;
let backend: Backend;

beforeAll(async () => {
  database = await createDatabase();
  folder = await mkdtemp(join(tmpdir(), 'threadlog-crash-'));
  backend = await openForReading({ DATABASE_URL: database.url, DATA_DIR: folder, MASTER_KEY: randomBytes(32).toString('base64') });
});

afterAll(async () => {
  await backend.close();
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

/** The real store until the append that the crash falls on; from then on the process is as good as dead. */
function dyingAt(append: number, written: boolean): { store: EventStore; died: () => boolean } {
  let appends = 0;
  let dead = false;
  const { store } = backend;
  return {
    died: () => dead,
    store: {
      log: store.log,
      head: () => store.head(),
      feed: (after, options) => store.feed(after, options),
      close: () => Promise.resolve(),
      read: (stream, options) => {
        if (dead) throw new StoreUnavailable('the process is dead');
        return store.read(stream, options);
      },
      appendInOrder: () => Promise.reject(new Error('an import of dialogues appends one by one')),
      append: async (stream, expected, events, deadline) => {
        if (dead) throw new StoreUnavailable('the process is dead');
        if (appends++ !== append) return store.append(stream, expected, events, deadline);
        dead = true;
        if (written) await store.append(stream, expected, events, deadline);
        throw new OutcomeUnknown('the process died');
      },
    },
  };
}

/** A process of its own: it remembers nothing of the others. */
function importer(store: EventStore, organizationId: string): ConversationImporter {
  const transactor = new Transactor(store, backend.clock, randomIds, backend.unchangedAnswers);
  const keys = new VisitorKeys(backend.database, backend.masterKey);
  return new ConversationImporter(
    {
      store,
      transactor,
      keys,
      ids: randomIds,
      agents: new AssigneeReader(transactor),
      visitors: new VisitorWriter(transactor, keys, backend.unchangedAnswers),
      conversations: new ConversationWriter(transactor, keys),
      patiently: (work) => work(),
    },
    organizationId,
  );
}

/** Made anew each time: a shared server may hold those of earlier runs. */
async function organization(name: string): Promise<string> {
  const id = `${name}-${randomBytes(4).toString('hex')}`;
  const step = () => systemContext(id, randomIds.next());
  await backend.transactor.transact(organizationAggregate, id, step(), createOrganization('Test'));
  await backend.transactor.transact(organizationAggregate, id, step(), changeDefaultInbox('inbox', 0));
  return id;
}

// One at a time, so that the n-th append is the same one in every run. Ids follow from the organization: they are left out below.
const dialogues = [
  { ...dialogue(8), visitor: undefined, status: undefined },
  { ...dialogue(2, 950), status: 'resolved' },
  { ...dialogue(10), visitor: { email: 'noor@example.com', name: 'Noor' } },
  { ...dialogue(11), visitor: { email: 'noor@example.com', userId: 'u-1', name: 'Noor Haddad' } },
].map((one) => readDialogue(JSON.stringify(one), Date.now()));

async function run(into: ConversationImporter): Promise<Imported[]> {
  const results: Imported[] = [];
  for (const one of dialogues) results.push(...(await into.importAll([one])));
  return results;
}

/** What the streams hold, in the order of their first events, without the ids that follow from the organization. */
async function told(organizationId: string) {
  return Object.entries(await history(backend, organizationId)).map(([name, events]) => ({
    kind: name.split(' ')[0],
    events: (events as { revision: number; type: string; data: Record<string, unknown>; occurredAt: string }[]).map(
      ({ revision, type, data: { visitorId: _visitor, inboxId: _inbox, ...data }, occurredAt }) => ({ revision, type, data, occurredAt }),
    ),
  }));
}

test('a crash before or after any append is completed by the next run, and by nothing more', async () => {
  const undisturbed = await organization('undisturbed');
  expect((await run(importer(backend.store, undisturbed))).map(({ outcome }) => outcome)).toEqual(Array(4).fill('imported'));
  const expected = await told(undisturbed);
  expect(expected.map(({ kind }) => kind).filter((kind) => kind === 'conversation')).toHaveLength(4);
  expect(expected.map(({ kind }) => kind).filter((kind) => kind === 'visitor')).toHaveLength(3);

  let crashes = 0;
  for (let append = 0; ; append++) {
    let died = false;
    for (const written of [false, true]) {
      const organizationId = await organization(`crash-${append}-${written ? 'after' : 'before'}`);
      const dying = dyingAt(append, written);
      const first = await run(importer(dying.store, organizationId)).catch((error: unknown) => {
        // What the command line waits for, or tells the operator to run again for.
        expect(isPassing(error)).toBe(true);
        return undefined;
      });
      expect(first === undefined).toBe(dying.died());
      died = dying.died();
      if (died) crashes++;
      const second = await run(importer(backend.store, organizationId));
      for (const { outcome } of second) expect(outcome).not.toBe('refused');
      expect(await told(organizationId)).toEqual(expected);
      expect((await run(importer(backend.store, organizationId))).map(({ outcome }) => outcome)).toEqual(Array(4).fill('present'));
      expect(await told(organizationId)).toEqual(expected);
    }
    if (!died) break;
  }
  // Four visitors' steps, their claims, and conversations of one, three, one and one appends.
  expect(crashes).toBeGreaterThanOrEqual(2 * 10);
}, 240_000);
