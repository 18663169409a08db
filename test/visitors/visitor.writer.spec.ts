import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { decode } from '../../src/event-store/aggregate.js';
import { type EventStore, parseStreamName, StoreUnavailable } from '../../src/event-store/event-store.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import type { CommandContext } from '../../src/commands/command-context.js';
import { Transactor } from '../../src/commands/transactor.js';
import { archiveCompany, companyAggregate, createCompany } from '../../src/companies/company.js';
import { systemClock } from '../../src/clock.js';
import { openDatabase, type OpenDatabase } from '../../src/database/database.js';
import { emailKey } from '../../src/texts/email-address.js';
import { ThreadlogError } from '../../src/errors.js';
import { UnchangedAnswerRows } from '../../src/commands/idempotency.js';
import { randomIds } from '../../src/ids.js';
import { MasterKey } from '../../src/security/sealing.js';
import { VisitorKeys, visitorKeyId } from '../../src/security/visitor-keys.js';
import { claimAggregate } from '../../src/commands/claim.js';
import { Claims } from '../../src/commands/claims.js';
import { VisitorWriter } from '../../src/visitors/visitor.writer.js';
import {
  createVisitor,
  evolveVisitor,
  initialVisitor,
  type Visitor,
  visitorAggregate,
  type VisitorEvent,
} from '../../src/visitors/visitor.js';
import { unsealVisitor, sealVisitor } from '../../src/visitors/visitor.sealing.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { everything, Killed, killedAtAppend, ProcessStore } from '../support/process-store.js';

let database: TestDatabase;
let open: OpenDatabase;
const master = new MasterKey(randomBytes(32));

beforeAll(async () => {
  database = await createDatabase();
  open = openDatabase({ url: database.url, poolSize: 8, name: 'test', onError: () => undefined });
});

afterAll(async () => {
  await open.close();
  await database.drop();
});

interface Process {
  readonly directory: VisitorWriter;
  readonly transactor: Transactor;
  readonly keys: VisitorKeys;
}

/** A process of its own: nothing is shared with others but the log and the database. */
function startProcess(store: EventStore): Process {
  const answers = new UnchangedAnswerRows(open.kysely);
  const transactor = new Transactor(store, systemClock, randomIds, answers);
  const keys = new VisitorKeys(open.kysely, master);
  return { directory: new VisitorWriter(transactor, keys, answers), transactor, keys };
}

let organizations = 0;
const newOrganization = () => `org${++organizations}`;

function command(organizationId: string, commandId: string = randomIds.next(), keyed = false): CommandContext {
  return {
    organizationId,
    actor: { type: 'apiKey', id: 'key' },
    commandId,
    requestHash: 'hash',
    correlationId: 'request',
    ...(keyed ? { keyed: true as const } : {}),
  };
}

async function codeOf(run: Promise<unknown>): Promise<string> {
  try {
    await run;
  } catch (error) {
    if (error instanceof ThreadlogError) return error.code;
    throw error;
  }
  return 'done';
}

/**
 * Folds the log event by event: at no moment may two visitors that are not archived have one key, and in the end whoever has a key also has
 * its claim.
 */
async function assertUnique(store: EventStore, organizationId: string, keys: VisitorKeys): Promise<Map<string, Visitor<unknown>>> {
  const visitors = new Map<string, Visitor>();
  const opened = new Map<string, Visitor<unknown>>();
  const owners = new Map<string, string | null>();
  const held = new Map<string, string>();
  for (const stored of await everything(store)) {
    const name = parseStreamName(stored.stream)!;
    if (name.organizationId !== organizationId) continue;
    if (name.kind === 'claim') owners.set(name.id, claimAggregate.evolve({ owner: null }, decode(claimAggregate.codec, stored)).owner);
    if (name.kind !== 'visitor') continue;
    const event = decode<VisitorEvent>(visitorAggregate.codec, stored);
    const visitor = evolveVisitor(visitors.get(name.id) ?? initialVisitor, event);
    visitors.set(name.id, visitor);
    const plain = unsealVisitor(visitor, await keys.find(organizationId, visitorKeyId(organizationId, name.id)));
    opened.set(name.id, plain);
    for (const [label, owner] of held) if (owner === name.id) held.delete(label);
    if (plain.archived) continue;
    const labels = [
      ...(plain.userId === null ? [] : [`userId ${plain.userId}`]),
      ...(plain.email === null ? [] : [`email ${emailKey(plain.email as string)}`]),
    ];
    for (const label of labels) {
      if (held.has(label)) throw new Error(`${label} is ${held.get(label)}'s and ${name.id}'s`);
      held.set(label, name.id);
    }
  }
  // Each owner of a key holds one claim per key at least; which claim is whose key the log does not tell.
  const claims = new Map<string, number>();
  for (const owner of owners.values()) if (owner !== null) claims.set(owner, (claims.get(owner) ?? 0) + 1);
  const wanted = new Map<string, number>();
  for (const owner of held.values()) wanted.set(owner, (wanted.get(owner) ?? 0) + 1);
  for (const [owner, count] of wanted) if ((claims.get(owner) ?? 0) < count) throw new Error(`${owner} has ${count} keys and fewer claims`);
  return opened;
}

const claimsIn = async (store: EventStore) =>
  (await everything(store)).filter(({ stream }) => stream.startsWith('claim-')).map(({ type }) => type);
const visitorsIn = async (store: EventStore) => (await everything(store)).filter(({ stream }) => stream.startsWith('visitor-'));

describe('finding and making', () => {
  const store = new MemoryEventStore();
  let { directory, transactor, keys } = {} as Process;
  beforeAll(() => ({ directory, transactor, keys } = startProcess(store)));

  test('makes a visitor once and finds it by id, userId and e-mail', async () => {
    const org = newOrganization();
    const made = await directory.resolve(command(org), { userId: 'u', email: 'Ada@Example.com', name: 'Ada' });
    expect(made).toMatchObject({ made: true, outcome: 'appended', unsealed: { userId: 'u', email: 'Ada@Example.com', name: 'Ada' } });
    for (const given of [
      { id: made.visitorId },
      { userId: 'u' },
      { email: 'ada@example.com' },
      { userId: 'u', email: 'ADA@EXAMPLE.COM' },
    ]) {
      const found = await directory.resolve(command(org), given);
      expect(found).toMatchObject({ visitorId: made.visitorId, made: false });
    }
    expect(await directory.resolve(command(org), { name: 'Nobody in particular' })).toMatchObject({ made: true });
    expect((await assertUnique(store, org, keys)).size).toBe(2);
  });

  test('sets what differs on the one that it finds, and leaves what is absent or null', async () => {
    const org = newOrganization();
    const { visitorId } = await directory.resolve(command(org), { userId: 'u', name: 'Ada', plan: 'free' });
    const found = await directory.resolve(command(org), {
      userId: 'u',
      name: null,
      plan: 'pro',
      email: 'ada@example.com',
      attributes: { seats: 3 },
    });
    expect(found).toMatchObject({ visitorId, unsealed: { name: 'Ada', plan: 'pro', email: 'ada@example.com', attributes: { seats: 3 } } });
    expect(await directory.resolve(command(org), { email: 'ada@example.com' })).toMatchObject({ visitorId });
    const before = (await everything(store)).length;
    const again = await directory.resolve(command(org), { userId: 'u', plan: 'pro', attributes: { seats: 3 } });
    expect(again).toMatchObject({ outcome: 'unchanged', revision: found.revision, position: found.position });
    expect((await everything(store)).length).toBe(before);
  });

  test('finds nobody in another organization', async () => {
    const [one, other] = [newOrganization(), newOrganization()];
    const made = await directory.resolve(command(one), { userId: 'u', email: 'ada@example.com' });
    const elsewhere = await directory.resolve(command(other), { userId: 'u', email: 'ada@example.com' });
    expect(elsewhere.made).toBe(true);
    expect(elsewhere.visitorId).not.toBe(made.visitorId);
    expect(await codeOf(directory.get(other, made.visitorId))).toBe('not_found');
  });

  test('the strongest key given decides, and a key that is another visitor’s is left there and named', async () => {
    const org = newOrganization();
    await directory.resolve(command(org), { id: 'a', userId: 'ua', email: 'a@example.com' });
    await directory.resolve(command(org), { id: 'b', userId: 'ub', email: 'b@example.com' });
    const email = { field: 'visitor.email', code: 'email_taken' };
    const userId = { field: 'visitor.userId', code: 'user_id_taken' };
    const found = async (given: object) => directory.resolve(command(org), given);
    expect(await found({ userId: 'ua', email: 'B@example.com', name: 'Ada' })).toMatchObject({
      visitorId: 'a',
      left: [email],
      unsealed: { userId: 'ua', email: 'a@example.com', name: 'Ada' },
    });
    expect(await found({ id: 'a', userId: 'ub', email: 'b@example.com' })).toMatchObject({
      visitorId: 'a',
      left: [userId, email],
      unsealed: { userId: 'ua', email: 'a@example.com' },
    });
    expect(await found({ id: 'new', userId: 'ub', name: 'New' })).toMatchObject({
      visitorId: 'new',
      made: true,
      left: [userId],
      unsealed: { userId: null, name: 'New' },
    });
    // The address is of somebody else's account: it does not make that account this one.
    const other = await found({ userId: 'unknown', email: 'b@example.com' });
    expect(other).toMatchObject({ made: true, left: [email], unsealed: { userId: 'unknown', email: null } });
    expect(await found({ userId: 'unknown', email: 'b@example.com' })).toMatchObject({
      visitorId: other.visitorId,
      made: false,
      left: [email],
    });
    // Freed by its owner, it goes to who names it next.
    await directory.change(command(org), 'b', { email: null });
    expect(await found({ userId: 'unknown', email: 'b@example.com' })).toMatchObject({ left: [], unsealed: { email: 'b@example.com' } });
    expect(await found({ email: 'b@example.com' })).toMatchObject({ visitorId: other.visitorId });
    await assertUnique(store, org, keys);
  });

  test('registering a visitor is refused when its keys name different ones, and nothing is written', async () => {
    const org = newOrganization();
    await directory.resolve(command(org), { id: 'a', userId: 'ua', email: 'a@example.com' });
    await directory.resolve(command(org), { id: 'b', userId: 'ub', email: 'b@example.com' });
    const before = (await everything(store)).length;
    for (const given of [
      { userId: 'ua', email: 'b@example.com' },
      { userId: 'unknown', email: 'b@example.com' },
    ])
      expect(await codeOf(directory.register(command(org), given))).toBe('visitor_conflict');
    expect((await everything(store)).length).toBe(before);
  });

  test('requests that bring one address under several userIds at once are all answered, and one of them gets it', async () => {
    const org = newOrganization();
    const processes = [directory, startProcess(store).directory, startProcess(store).directory];
    const found = await Promise.all(
      Array.from({ length: 9 }, (_, i) => processes[i % 3]!.resolve(command(org), { userId: `u${i}`, email: 'shared@example.com' })),
    );
    expect(new Set(found.map(({ visitorId }) => visitorId)).size).toBe(9);
    expect(found.map(({ unsealed }) => unsealed.userId)).toEqual(Array.from({ length: 9 }, (_, i) => `u${i}`));
    expect(found.filter(({ left }) => left.length === 0)).toHaveLength(1);
    await assertUnique(store, org, keys);
  });

  test('a visitor whose address an earlier build claimed in another spelling is found, keeps it, and gives it up', async () => {
    const claims = new Claims(transactor, keys);
    for (const stored of ['jose\u0301@example.com', 'Ada@München.example']) {
      const org = newOrganization();
      const hold = { taken: new Map<string, number>(), left: new Map<string, number>() };
      // As it was done then: the claim was named by the spelling in lower case.
      await claims.take(command(org), 'old', [{ kind: 'email', value: stored.toLowerCase() }], hold);
      const { key, keyId } = await keys.make(org, 'old');
      const created = createVisitor(sealVisitor(key, { email: stored }));
      await transactor.transact(visitorAggregate, 'old', { ...command(org), keyId }, (v) => created(v));
      const spellings = [stored, stored.normalize('NFC').toUpperCase(), stored.replace('München', 'xn--mnchen-3ya'), emailKey(stored)];
      for (const email of spellings) {
        expect(await directory.resolve(command(org), { email })).toMatchObject({ visitorId: 'old', made: false });
        expect(await codeOf(directory.register(command(org), { id: 'thief', email }))).toBe('email_taken');
      }
      await directory.change(command(org), 'old', { email: 'new@example.com' });
      const next = await directory.resolve(command(org), { email: emailKey(stored) });
      expect(next).toMatchObject({ made: true });
      expect(await directory.resolve(command(org), { email: stored })).toMatchObject({ visitorId: next.visitorId });
      await assertUnique(store, org, keys);
    }
  });

  test('an e-mail finds a visitor without a userId, who gets it', async () => {
    const org = newOrganization();
    const lead = await directory.resolve(command(org), { email: 'ada@example.com' });
    expect(await directory.resolve(command(org), { userId: 'u', email: 'ada@example.com' })).toMatchObject({
      visitorId: lead.visitorId,
      unsealed: { userId: 'u' },
    });
    expect(await directory.resolve(command(org), { userId: 'u' })).toMatchObject({ visitorId: lead.visitorId });
  });

  test('a command that comes again is answered and writes nothing', async () => {
    const org = newOrganization();
    for (const given of [{ name: 'Ada' }, { userId: 'u', email: 'e@example.com', name: 'Ada' }, { id: 'own', email: 'own@example.com' }]) {
      const again = command(org, randomIds.next(), true);
      const first = await directory.register(again, given);
      const before = (await everything(store)).length;
      const other = startProcess(store).directory;
      for (const process of [directory, other]) {
        const answer = await process.register(again, given);
        expect(answer).toMatchObject({
          outcome: 'repeated',
          made: true,
          visitorId: first.visitorId,
          revision: first.revision,
          unsealed: first.unsealed,
        });
      }
      expect(await codeOf(other.register({ ...again, requestHash: 'another' }, given))).toBe('idempotency_key_reused');
      expect((await everything(store)).length).toBe(before);
    }
  });

  test('a keyed command is answered as the first time, also when its keys name another visitor by then', async () => {
    const org = newOrganization();
    await directory.resolve(command(org), { id: 'a', email: 'e@example.com' });
    for (const name of ['Ada', 'Ada']) {
      // The first time it changes the name, the second time it finds nothing to change.
      await directory.change(command(org), 'a', { email: 'e@example.com' });
      const keyed = command(org, randomIds.next(), true);
      const first = await directory.register(keyed, { email: 'e@example.com', name });
      expect(first).toMatchObject({ visitorId: 'a', made: false });
      await directory.change(command(org), 'a', { email: 'elsewhere@example.com' });
      const thief = await directory.resolve(command(org), { email: 'e@example.com', name: 'Eve' });
      const before = (await everything(store)).length;
      const again = await startProcess(store).directory.register(keyed, { email: 'e@example.com', name });
      expect(again).toMatchObject({
        outcome: 'repeated',
        visitorId: 'a',
        revision: first.revision,
        unsealed: { name: 'Ada', email: 'e@example.com' },
      });
      expect((await everything(store)).length).toBe(before);
      await directory.archive(command(org), thief.visitorId);
    }
  });

  test('an own id must be new, and its keys free', async () => {
    const org = newOrganization();
    expect(await directory.register(command(org), { id: 'a', userId: 'ua', email: 'a@example.com' })).toMatchObject({
      made: true,
      visitorId: 'a',
    });
    expect(await codeOf(directory.register(command(org), { id: 'a', name: 'Other' }))).toBe('id_taken');
    const before = await visitorsIn(store);
    expect(await codeOf(directory.register(command(org), { id: 'b', userId: 'ua' }))).toBe('user_id_taken');
    expect(await codeOf(directory.register(command(org), { id: 'b', email: 'A@example.com' }))).toBe('email_taken');
    expect(await codeOf(directory.register(command(org), { id: 'b', userId: 'ub', email: 'A@example.com' }))).toBe('email_taken');
    expect(await visitorsIn(store)).toEqual(before);
    // What the refused command wanted is free for the next.
    expect(await directory.register(command(org), { id: 'c', userId: 'ub' })).toMatchObject({ made: true });
  });

  test('a company must exist', async () => {
    const org = newOrganization();
    const before = (await everything(store)).length;
    expect(await codeOf(directory.resolve(command(org), { email: 'e@example.com', companyId: 'acme' }))).toBe('unknown_company');
    expect((await everything(store)).length).toBe(before);
    await transactor.transact(companyAggregate, 'acme', command(org), createCompany({ name: 'Acme' }));
    const { visitorId } = await directory.resolve(command(org), { email: 'e@example.com', companyId: 'acme' });
    expect(await codeOf(directory.change(command(org), visitorId, { companyId: 'other', email: 'new@example.com' }))).toBe(
      'unknown_company',
    );
    expect((await directory.get(org, visitorId)).unsealed).toMatchObject({ companyId: 'acme', email: 'e@example.com' });
  });

  test('an archived company stays where it is, and comes to nobody else', async () => {
    const org = newOrganization();
    await transactor.transact(companyAggregate, 'acme', command(org), createCompany({ name: 'Acme' }));
    const { visitorId } = await directory.resolve(command(org), { email: 'e@example.com', companyId: 'acme' });
    await transactor.transact(companyAggregate, 'acme', command(org), archiveCompany());
    expect(await directory.resolve(command(org), { email: 'e@example.com', companyId: 'acme', name: 'Ada' })).toMatchObject({ visitorId });
    expect(await codeOf(directory.resolve(command(org), { email: 'f@example.com', companyId: 'acme' }))).toBe('resource_archived');
    await directory.change(command(org), visitorId, { companyId: null });
    expect(await codeOf(directory.change(command(org), visitorId, { companyId: 'acme' }))).toBe('resource_archived');
  });
});

describe('changing', () => {
  const store = new MemoryEventStore();
  let { directory, keys } = {} as Process;
  beforeAll(() => ({ directory, keys } = startProcess(store)));

  test('moves a key: the new one is taken, the old one free', async () => {
    const org = newOrganization();
    await directory.resolve(command(org), { id: 'a', userId: 'ua', email: 'a@example.com' });
    expect(await directory.change(command(org), 'a', { userId: 'ua2', email: 'a2@example.com' })).toMatchObject({
      unsealed: { userId: 'ua2', email: 'a2@example.com' },
    });
    const other = await directory.resolve(command(org), { userId: 'ua', email: 'a@example.com' });
    expect(other).toMatchObject({ made: true });
    expect(await codeOf(directory.change(command(org), 'a', { userId: 'ua' }))).toBe('user_id_taken');
    expect(await codeOf(directory.change(command(org), 'a', { email: 'A@example.com' }))).toBe('email_taken');
    // Null gives a key up.
    await directory.change(command(org), other.visitorId, { userId: null, email: null });
    expect(await directory.change(command(org), 'a', { userId: 'ua', email: 'a@example.com' })).toMatchObject({
      unsealed: { userId: 'ua' },
    });
    await assertUnique(store, org, keys);
  });

  test('another spelling of the own address needs no new claim', async () => {
    const org = newOrganization();
    await directory.resolve(command(org), { id: 'a', email: 'a@example.com' });
    const before = (await claimsIn(store)).length;
    expect(await directory.change(command(org), 'a', { email: 'A@Example.com' })).toMatchObject({
      outcome: 'appended',
      unsealed: { email: 'A@Example.com' },
    });
    expect((await claimsIn(store)).length).toBe(before);
    expect(await directory.resolve(command(org), { email: 'a@example.com' })).toMatchObject({ visitorId: 'a', made: false });
  });

  test('what is refused claims nothing', async () => {
    const org = newOrganization();
    await directory.resolve(command(org), { id: 'a', email: 'a@example.com' });
    const before = (await everything(store)).length;
    const many = Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`a${i}`, i]));
    expect(await codeOf(directory.change(command(org), 'a', { email: 'b@example.com', attributes: many }))).toBe('limit_exceeded');
    expect(await codeOf(directory.change({ ...command(org), ifMatch: 7 }, 'a', { email: 'b@example.com' }))).toBe('revision_mismatch');
    expect(await codeOf(directory.change(command(org), 'nobody', { email: 'b@example.com' }))).toBe('not_found');
    expect((await everything(store)).length).toBe(before);
  });

  test('an archived visitor gives its keys back, keeps its id and takes no change', async () => {
    const org = newOrganization();
    await directory.resolve(command(org), { id: 'a', userId: 'ua', email: 'a@example.com' });
    await directory.archive(command(org), 'a');
    expect(await directory.archive(command(org), 'a')).toMatchObject({ outcome: 'unchanged' });
    expect(await codeOf(directory.change(command(org), 'a', { name: 'Ada' }))).toBe('resource_archived');
    expect(await codeOf(directory.resolve(command(org), { id: 'a' }))).toBe('resource_archived');
    expect(await codeOf(directory.register(command(org), { id: 'a' }))).toBe('id_taken');
    expect(await codeOf(directory.archive(command(org), 'nobody'))).toBe('not_found');
    expect(await directory.resolve(command(org), { userId: 'ua', email: 'a@example.com' })).toMatchObject({ made: true });
    expect((await directory.get(org, 'a')).unsealed).toMatchObject({ archived: true, userId: 'ua', email: 'a@example.com' });
    await assertUnique(store, org, keys);
  });

  test('an erased visitor takes no change', async () => {
    const org = newOrganization();
    await directory.resolve(command(org), { id: 'a', userId: 'ua', email: 'a@example.com', name: 'Ada' });
    await open.kysely.updateTable('keep.visitor_keys').set({ wrapped: null }).where('organization_id', '=', org).execute();
    const later = startProcess(store).directory;
    expect((await later.get(org, 'a')).unsealed).toMatchObject({ name: '[erased]', email: '[erased]' });
    expect(await codeOf(later.change(command(org), 'a', { name: 'Ada' }))).toBe('visitor_erased');
    expect(await codeOf(later.resolve(command(org), { userId: 'ua', name: 'Ada' }))).toBe('visitor_erased');
  });
});

describe('races', () => {
  test('requests with the same keys at once, in several processes, make one visitor', async () => {
    const store = new MemoryEventStore();
    for (const given of [{ userId: 'u' }, { email: 'e@example.com' }, { userId: 'u', email: 'e@example.com' }]) {
      const org = newOrganization();
      const processes = Array.from({ length: 4 }, () => startProcess(new ProcessStore(store)));
      const answers = await Promise.all(
        Array.from({ length: 16 }, (_, i) =>
          processes[i % 4]!.directory.resolve(command(org), { ...given, attributes: { [`from${i}`]: i } }),
        ),
      );
      expect(new Set(answers.map(({ visitorId }) => visitorId)).size).toBe(1);
      const visitors = await assertUnique(store, org, processes[0]!.keys);
      expect([...visitors.values()]).toMatchObject([{ userId: given.userId ?? null, email: given.email ?? null }]);
      // Everyone's own fields are there, those of the ones that came second too.
      expect(Object.keys([...visitors.values()][0]!.attributes)).toHaveLength(16);
    }
  });

  test('the same command at once in several processes is done once', async () => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    const again = command(org, randomIds.next(), true);
    const answers = await Promise.all(
      Array.from({ length: 8 }, () =>
        startProcess(new ProcessStore(store)).directory.register(again, { userId: 'u', email: 'e@example.com', name: 'Ada' }),
      ),
    );
    expect(new Set(answers.map(({ visitorId, revision, made }) => `${visitorId} ${revision} ${made}`)).size).toBe(1);
    expect(await visitorsIn(store)).toHaveLength(1);
  });

  test('a claim that is met before its visitor is made leads to that visitor', async () => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    let arrived = () => {};
    const here = new Promise<void>((resolve) => (arrived = resolve));
    let letGo = () => {};
    const gate = new Promise<void>((resolve) => (letGo = resolve));
    // The first process stands still between its claim and its visitor, under an id of its own choice.
    const slow = startProcess(
      new ProcessStore(store, (stream) =>
        stream.startsWith('visitor-')
          ? {
              before: async () => {
                arrived();
                await gate;
              },
            }
          : undefined,
      ),
    );
    const first = slow.directory.register(command(org), { id: 'own', email: 'e@example.com', name: 'Ada' });
    await here;
    const second = await startProcess(store).directory.resolve(command(org), { email: 'e@example.com', plan: 'pro' });
    expect(second).toMatchObject({ visitorId: 'own', made: true });
    letGo();
    // Made by the other on its behalf: it is no taken id.
    expect(await first).toMatchObject({ visitorId: 'own', made: true, unsealed: { name: 'Ada', plan: 'pro', email: 'e@example.com' } });
    await assertUnique(store, org, slow.keys);
  });

  test('a visitor who takes a key back while its claim is being released keeps it', async () => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    await startProcess(store).directory.resolve(command(org), { id: 'a', email: 'old@example.com' });
    let arrived = () => {};
    const here = new Promise<void>((resolve) => (arrived = resolve));
    let letGo = () => {};
    const gate = new Promise<void>((resolve) => (letGo = resolve));
    const slow = startProcess(
      new ProcessStore(store, (_, events) =>
        events[0]!.type === 'Released'
          ? {
              before: async () => {
                arrived();
                await gate;
              },
            }
          : undefined,
      ),
    );
    const leaving = slow.directory.change(command(org), 'a', { email: 'new@example.com' });
    await here;
    const back = startProcess(store);
    await back.directory.change(command(org), 'a', { email: 'old@example.com' });
    letGo();
    await leaving;
    expect(await codeOf(back.directory.register(command(org), { id: 'b', email: 'old@example.com' }))).toBe('email_taken');
    expect(await back.directory.register(command(org), { id: 'c', email: 'new@example.com' })).toMatchObject({ made: true });
    await assertUnique(store, org, back.keys);
  });
});

describe('a store that cannot be reached', () => {
  const cutVisitors = (store: EventStore) =>
    new ProcessStore(store, (stream) =>
      stream.startsWith('visitor-')
        ? {
            before: () => {
              throw new StoreUnavailable('cut');
            },
          }
        : undefined,
    );

  test('after the claims: the command gives them back, and they are free at once', async () => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    const keys = { userId: 'u', email: 'e@example.com' };
    await startProcess(store).directory.register(command(org), { id: 'a' });
    const cut = startProcess(cutVisitors(store));
    expect(await codeOf(cut.directory.register(command(org), { id: 'own', ...keys }))).toBe('store_unavailable');
    expect(await codeOf(cut.directory.change(command(org), 'a', keys))).toBe('store_unavailable');
    expect(await claimsIn(store)).toEqual(['Claimed', 'Claimed', 'Released', 'Released', 'Claimed', 'Claimed', 'Released', 'Released']);
    expect(await startProcess(store).directory.register(command(org), { id: 'b', ...keys })).toMatchObject({ made: true });
  });

  test('a claim that another command counts on by now is not given back', async () => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    const other = startProcess(store);
    await other.directory.register(command(org), { id: 'a' });
    const fields = { email: 'e@example.com' };
    const cut = startProcess(
      new ProcessStore(store, (stream) =>
        stream.startsWith('visitor-')
          ? {
              before: async () => {
                // The same change by another request overtakes this one between its claim and its visitor.
                await other.directory.change(command(org), 'a', fields);
                throw new StoreUnavailable('cut');
              },
            }
          : undefined,
      ),
    );
    expect(await codeOf(cut.directory.change(command(org), 'a', fields))).toBe('store_unavailable');
    expect(await codeOf(other.directory.register(command(org), { id: 'b', ...fields }))).toBe('email_taken');
    await assertUnique(store, org, other.keys);
  });
});

describe('a process that is killed', () => {
  const killedAt = (shared: EventStore, n: number, after: boolean, run: (process: Process) => Promise<unknown>) =>
    killedAtAppend(shared, n, after, (store) => run(startProcess(store)));

  const steps = (n: number): [number, boolean][] =>
    [false, true].flatMap((after) => Array.from({ length: n }, (_, i): [number, boolean] => [i + 1, after]));

  test.each(steps(3))(
    'at append %i (after it: %s) of making: the retry completes it, and so does whoever comes first',
    async (n, after) => {
      for (const retried of [true, false]) {
        const store = new MemoryEventStore();
        const org = newOrganization();
        const asked = command(org, randomIds.next(), true);
        const given = { userId: 'u', email: 'e@example.com', name: 'Ada' };
        expect(await killedAt(store, n, after, ({ directory }) => directory.register(asked, given))).toBe(true);
        const later = startProcess(store);
        const answer = await later.directory.register(retried ? asked : command(org), given);
        expect(answer.unsealed).toMatchObject({ userId: 'u', email: 'e@example.com', name: 'Ada' });
        expect(await later.directory.resolve(command(org), { email: 'e@example.com' })).toMatchObject({ visitorId: answer.visitorId });
        const visitors = await assertUnique(store, org, later.keys);
        expect(visitors.size).toBe(1);
      }
    },
  );

  test.each(steps(4))('at append %i (after it: %s) of moving keys: nothing is lost, nothing stays taken for good', async (n, after) => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    await startProcess(store).directory.resolve(command(org), { id: 'a', email: 'old@example.com', userId: 'old' });
    const moved = { email: 'new@example.com', userId: 'new' };
    // Two claims, the visitor, two releases.
    expect(await killedAt(store, n, after, ({ directory }) => directory.change(command(org), 'a', moved))).toBe(true);
    const later = startProcess(store);
    const now = (await later.directory.get(org, 'a')).unsealed;
    const done = now.email === 'new@example.com';
    expect(now).toMatchObject(done ? { email: 'new@example.com', userId: 'new' } : { email: 'old@example.com', userId: 'old' });
    if (done) {
      // The keys that it left are anybody's.
      expect(await later.directory.register(command(org), { id: 'b', email: 'old@example.com', userId: 'old' })).toMatchObject({
        made: true,
      });
    } else {
      // The keys that it wanted are its own until its next event, and whoever names them finishes the change.
      expect(await later.directory.resolve(command(org), { email: 'old@example.com', userId: 'old' })).toMatchObject({ visitorId: 'a' });
      await later.directory.change(command(org), 'a', { name: 'Ada' });
      expect(await later.directory.register(command(org), { id: 'b', ...moved })).toMatchObject({ made: true });
    }
    await assertUnique(store, org, later.keys);
  });

  test('between the claim and the change: whoever finds the visitor by the new key finishes it', async () => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    await startProcess(store).directory.resolve(command(org), { id: 'a', email: 'old@example.com' });
    expect(await killedAt(store, 1, true, ({ directory }) => directory.change(command(org), 'a', { email: 'new@example.com' }))).toBe(true);
    const later = startProcess(store);
    expect(await codeOf(later.directory.register(command(org), { id: 'b', email: 'new@example.com' }))).toBe('email_taken');
    expect(await later.directory.resolve(command(org), { email: 'new@example.com' })).toMatchObject({
      visitorId: 'a',
      unsealed: { email: 'new@example.com' },
    });
    expect(await later.directory.register(command(org), { id: 'b', email: 'old@example.com' })).toMatchObject({ made: true });
    await assertUnique(store, org, later.keys);
  });

  test('between the end of a visitor and the release of its keys: they are free all the same', async () => {
    const store = new MemoryEventStore();
    const org = newOrganization();
    await startProcess(store).directory.resolve(command(org), { id: 'a', email: 'e@example.com', userId: 'u' });
    expect(await killedAt(store, 1, true, ({ directory }) => directory.archive(command(org), 'a'))).toBe(true);
    const later = startProcess(store);
    expect(await later.directory.resolve(command(org), { email: 'e@example.com', userId: 'u' })).toMatchObject({ made: true });
    await assertUnique(store, org, later.keys);
  });
});

/** A small random source that shrinks with its seed. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const KEYS = { userId: ['u1', 'u2', 'u3'], email: ['a@x.io', 'b@x.io', 'c@x.io'] };
const maybe = <T>(values: readonly T[]) => fc.option(fc.constantFrom(...values), { nil: undefined, freq: 2 });
const ids = ['v1', 'v2', 'v3'];
const action = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('resolve' as const), userId: maybe(KEYS.userId), email: maybe(KEYS.email) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('register' as const),
      id: fc.constantFrom(...ids),
      userId: maybe(KEYS.userId),
      email: maybe(KEYS.email),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('change' as const),
      id: fc.constantFrom(...ids),
      userId: maybe([...KEYS.userId, null]),
      email: maybe([...KEYS.email, null]),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('archive' as const), id: fc.constantFrom(...ids) }) },
);

test('whatever races and whoever is killed: no moment has two visitors with one key, and every key finds its visitor', async () => {
  let killed = 0;
  let refusals = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ action, process: fc.nat(2) }), { minLength: 4, maxLength: 24, size: 'max' }),
      fc.nat(),
      fc.constantFrom(0, 0.03, 0.15),
      async (actions, seed, deadly) => {
        const store = new MemoryEventStore();
        const org = newOrganization();
        const random = randomOf(seed);
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
          return { own, ...startProcess(own) };
        };
        const processes = [start(), start(), start()];
        await Promise.all(
          actions.map(async ({ action: { do: verb, ...given }, process: which }) => {
            await pause();
            if (processes[which]!.own.dead) processes[which] = start();
            const { directory } = processes[which]!;
            const plain = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as { id: string };
            const { id, ...fields } = plain;
            const run = {
              resolve: () => directory.resolve(command(org), fields),
              register: () => directory.register(command(org), plain),
              change: () => directory.change(command(org), id, fields),
              archive: () => directory.archive(command(org), id),
            }[verb];
            try {
              await run();
            } catch (error) {
              if (error instanceof Killed) killed++;
              else if (error instanceof ThreadlogError) {
                refusals++;
                expect(error.code).not.toBe('internal_error');
              } else throw error;
            }
          }),
        );
        const last = startProcess(store);
        for (const kind of ['userId', 'email'] as const)
          for (const value of KEYS[kind]) {
            // Anew each time: finding a visitor by a key that it was about to get finishes that change.
            const visitors = await assertUnique(store, org, last.keys);
            const holder = [...visitors].find(([, visitor]) => !visitor.archived && visitor[kind] === value)?.[0];
            const found = await last.directory.resolve(command(org), { [kind]: value });
            if (holder !== undefined) expect(found).toMatchObject({ visitorId: holder, made: false });
            expect(found.unsealed[kind]).toBe(value);
          }
        await assertUnique(store, org, last.keys);
      },
    ),
    { numRuns: Number(process.env['VISITOR_RUNS'] ?? 25) },
  );
  // A run that met no crash and no refusal has shown nothing.
  expect(killed).toBeGreaterThan(0);
  expect(refusals).toBeGreaterThan(0);
}, 120_000);
