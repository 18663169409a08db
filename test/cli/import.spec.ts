import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Backend } from '../../src/backend.js';
import { ApiKeyWriter } from '../../src/api-keys/api-key.writer.js';
import { printable } from '../../src/cli/printable.js';
import { conversationAggregate, setStatus } from '../../src/conversations/conversation.js';
import { conversationsTable } from '../../src/conversations/conversation.table.js';
import { OrganizationWriter, systemContext } from '../../src/organizations/organization.writer.js';
import { ApiKeyLookup } from '../../src/security/api-key-lookup.js';
import { randomIds } from '../../src/ids.js';
import { AssigneeReader } from '../../src/team/assignee.reader.js';
import { archiveAssignee, assigneeAggregate, createAgent, createTeam } from '../../src/team/assignee.js';
import { VisitorWriter } from '../../src/visitors/visitor.writer.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { CLI_MS, startThreadlog, threadlog, threadlogHere } from '../support/threadlog.js';
import { countEvents, dialogue, eventCount, file, history, openForReading } from './import-file.js';

let database: TestDatabase;
let folder: string;
let environment: Record<string, string>;
let backend: Backend;
let organizations = 0;
/** A shared server may hold the organizations of earlier runs. */
const run = randomBytes(4).toString('hex');

beforeAll(async () => {
  database = await createDatabase();
  folder = await mkdtemp(join(tmpdir(), 'threadlog-import-'));
  environment = { DATABASE_URL: database.url, DATA_DIR: folder, MASTER_KEY: randomBytes(32).toString('base64') };
  backend = await openForReading(environment);
}, CLI_MS);

afterAll(async () => {
  await backend.close();
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

/** A tenant of the test's own, whose id every derived id follows from. */
async function organization(id = `org-${++organizations}-${run}`): Promise<string> {
  const { transactor, database: db, keys, masterKey } = backend;
  const agents = new AssigneeReader(transactor);
  const service = new OrganizationWriter(transactor, db, keys, new ApiKeyWriter(transactor, db, new ApiKeyLookup(db), masterKey, agents));
  return (await service.createOrganization('Test', { id })).organizationId;
}

interface Summary {
  lines: number;
  imported: number;
  present: number;
  bad: number;
  badLines: { line: number; reason: string }[];
  warnings: object[];
  messages: number;
}

/** From standard input, as a process of its own; or from a file and in this process, where read models are not waited for. */
async function importing(text: string | Buffer, organizationId: string, ...options: string[]) {
  const command = (path: string) => ['import', path, '--organization', organizationId, '--json', ...options];
  const path = join(folder, 'given.ndjson');
  const here = options.includes('--no-wait');
  if (here) await writeFile(path, text);
  const ended = here ? await threadlogHere(command(path), environment) : await threadlog(command('-'), environment, text);
  return { ...ended, summary: (ended.stdout === '' ? {} : JSON.parse(ended.stdout)) as Summary };
}

const dialogues = Array.from({ length: 60 }, (_, n) => dialogue(n));
const messages = dialogues.reduce((sum: number, one) => sum + (one as { turns: unknown[] }).turns.length, 0);

test(
  'a file becomes conversations that can be read when it ends, and the same file again adds nothing',
  async () => {
    const organizationId = await organization();
    const path = join(folder, 'file.ndjson.gz');
    await writeFile(path, gzipSync(file(dialogues)));
    const first = await threadlog(['import', path, '--organization', organizationId, '--json'], environment);
    expect({ code: first.code, stderr: first.stderr }).toEqual({ code: 0, stderr: '' });
    const summary = JSON.parse(first.stdout) as Summary & { seconds: number; messagesPerSecond: number };
    expect(summary).toMatchObject({ lines: 60, imported: 60, present: 0, bad: 0, badLines: [], messages });
    expect(summary.messagesPerSecond).toBeCloseTo(messages / summary.seconds, -1);

    // No server runs: the command has made the read models by itself, and left the group to whoever comes next.
    const rows = await backend.database
      .selectFrom(backend.readModels.view(conversationsTable).as('c'))
      .select(['id', 'message_count', 'status', 'tags', 'channel', 'subject'])
      .where('organization_id', '=', organizationId)
      .execute();
    expect(rows).toHaveLength(60);
    expect(rows.reduce((sum, row) => sum + row.message_count, 0)).toBe(messages);
    expect(new Set(rows.map(({ channel }) => channel))).toEqual(new Set(['import']));
    expect(rows.filter(({ subject }) => subject === 'Subject 42')).toEqual([
      expect.objectContaining({ status: 'resolved', tags: ['billing', 'topic 0', 'old'] }),
    ]);
    expect((await backend.checkpoints.health()).map(({ owner }) => owner)).toEqual([null, null]);

    const before = await history(backend, organizationId);
    const events = await eventCount(backend, organizationId);
    const again = await importing(file(dialogues), organizationId);
    expect(again).toMatchObject({ code: 0, stderr: '', summary: { imported: 0, present: 60, bad: 0, messages: 0 } });
    expect(await eventCount(backend, organizationId)).toBe(events);
    expect(await history(backend, organizationId)).toEqual(before);
  },
  CLI_MS,
);

test(
  'every field becomes what the documents say, at its own time, marked as imported',
  async () => {
    const organizationId = await organization();
    const ada = systemContext(organizationId, randomIds.next());
    await backend.transactor.transact(assigneeAggregate, 'ada', ada, createAgent({ name: 'Ada' }));
    const gone = systemContext(organizationId, randomIds.next());
    await backend.transactor.transact(assigneeAggregate, 'ada', gone, archiveAssignee('agent'));
    const given = {
      id: 'whole',
      topics: ['billing'],
      tags: ['vip', 'billing', 'vip\u00a0', 'bill\u200bing'],
      turns: [
        { from: 'visitor', text: 'Hello', at: '2024-03-01T10:00:00+01:00' },
        { from: 'agent', text: 'Hi!', agentId: 'ada', at: '2024-03-01T09:05:00Z' },
        { from: 'note', text: 'Seems nice' },
        { from: 'agent', text: 'Bye' },
      ],
      visitor: { userId: 'u-1', email: 'Noor@Example.com', name: ' Noor\u200b', attributes: { shoe: 39 } },
      status: 'closed',
      subject: 'Greetings',
      priority: 'low',
      customAttributes: { plan: 'pro', seats: 3 },
      createdAt: '2024-03-01T08:59:00Z',
    };
    expect(await importing(file([given]), organizationId, '--no-wait')).toMatchObject({ code: 0, summary: { imported: 1, messages: 4 } });
    const streams = await history(backend, organizationId);
    const conversation = Object.entries(streams).find(([name]) => name.startsWith('conversation'))?.[1] as {
      type: string;
      occurredAt: string;
      data: Record<string, unknown>;
    }[];
    expect(conversation.map(({ type, occurredAt, data }) => [type, occurredAt, data['content'] ?? null])).toEqual([
      ['ConversationOpened', '2024-03-01T08:59:00.000Z', null],
      ['TagsAdded', '2024-03-01T08:59:00.000Z', null],
      ['MessageReceived', '2024-03-01T09:00:00.000Z', 'Hello'],
      ['MessageSent', '2024-03-01T09:05:00.000Z', 'Hi!'],
      ['NoteAdded', '2024-03-01T09:05:00.000Z', 'Seems nice'],
      ['MessageSent', '2024-03-01T09:05:00.000Z', 'Bye'],
      ['ConversationStatusChanged', '2024-03-01T09:05:00.000Z', null],
    ]);
    expect(conversation[0]?.data).toMatchObject({
      channel: 'import',
      subject: 'Greetings',
      priority: 'low',
      customAttributes: { plan: 'pro', seats: 3 },
    });
    expect(conversation[1]?.data).toEqual({ tags: ['billing', 'vip'] });
    expect(conversation[3]?.data).toMatchObject({ author: { type: 'agent', id: 'ada', name: 'Ada' } });
    expect(conversation[5]?.data).toMatchObject({ author: { type: 'apiKey', id: 'import', name: 'Import' } });
    expect(conversation[6]?.data).toMatchObject({ from: 'open', to: 'closed', reason: 'import' });
    for (const events of Object.values(streams))
      for (const event of events) expect(event).toMatchObject({ imported: true, actor: { type: 'system', id: 'import' } });
    expect(Object.entries(streams).find(([name]) => name.startsWith('visitor'))?.[1]).toEqual([
      expect.objectContaining({
        type: 'VisitorCreated',
        data: { userId: 'u-1', email: 'Noor@Example.com', name: 'Noor', attributes: { shoe: 39 } },
      }),
    ]);
  },
  CLI_MS,
);

test(
  'what happened to a conversation and its visitor after the import is not undone by the same file',
  async () => {
    const organizationId = await organization();
    // The second finds the visitor as the first has made it, so that its own step leaves no trace to be known by.
    const visitor = { email: 'mika@example.com', name: 'Mika' };
    const given = [
      { ...dialogue(4), visitor },
      { ...dialogue(5), visitor },
    ];
    await importing(file(given), organizationId, '--no-wait');
    const ids = Object.keys(await history(backend, organizationId)).flatMap((name) => /^conversation (.*)/.exec(name)?.[1] ?? []);
    expect(ids).toHaveLength(2);
    const { state } = (await backend.transactor.load(conversationAggregate, organizationId, ids[0]!))!;
    const directory = new VisitorWriter(backend.transactor, backend.keys, backend.unchangedAnswers);
    await directory.change(systemContext(organizationId, randomIds.next()), state.visitorId, { name: 'Mika Saar' });
    const resolve = setStatus('resolved', 'agent');
    for (const id of ids)
      await backend.transactor.transact(conversationAggregate, id, systemContext(organizationId, randomIds.next()), (c) => resolve(c));
    const before = await history(backend, organizationId);
    expect(await importing(file(given), organizationId, '--no-wait')).toMatchObject({
      code: 0,
      summary: { imported: 0, present: 2, bad: 0 },
    });
    expect(await history(backend, organizationId)).toEqual(before);
  },
  CLI_MS,
);

test(
  'the later line has the last word on a visitor, and the lines share one',
  async () => {
    const organizationId = await organization();
    const same = Array.from({ length: 40 }, (_, n) => ({
      id: String(n),
      turns: [{ from: 'visitor', text: 'x' }],
      visitor: { email: n % 2 === 0 ? 'lena@example.com' : 'LENA@example.com', name: `Lena ${n}` },
    }));
    // Her address finds her and gives her a userId; under another userId it is left to her, and the line is imported without it.
    const known = { ...same[0], id: 'known', visitor: { userId: 'lena', email: 'lena@example.com' } };
    const other = { ...same[0], id: 'other', visitor: { userId: 'eve', email: 'Lena@example.com', name: 'Eve' } };
    const ended = await importing(file([...same, known, other]), organizationId, '--no-wait');
    expect(ended).toMatchObject({ code: 0, summary: { imported: 42, bad: 0 } });
    expect(ended.summary.warnings).toEqual([{ line: 42, field: 'visitor.email', code: 'email_taken' }]);
    expect(ended.stderr).toBe("line 42: imported without visitor.email, which is another visitor's (email_taken)\n");
    const streams = await history(backend, organizationId);
    const visitors = Object.entries(streams).filter(([name]) => name.startsWith('visitor'));
    expect(visitors.map(([, events]) => events.at(-1))).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ data: { userId: 'lena', email: 'lena@example.com' } }),
        expect.objectContaining({ data: { userId: 'eve', name: 'Eve' } }),
      ]),
    );
    expect(visitors).toHaveLength(2);
    const lena = visitors.map(([, events]) => events).find((events) => events.length > 1);
    expect(lena?.at(-2)).toMatchObject({ data: { name: 'Lena 39' } });
    expect(Object.keys(streams)).toHaveLength(44);
  },
  CLI_MS,
);

const BAD: [string | Buffer, string][] = [
  ['{"id":"x","turns":[', 'the line is not valid JSON'],
  ['[]', 'the line is not a JSON object'],
  ['{"id":"x"}', 'turns: is missing'],
  ['{"id":"x","turns":[]}', 'turns: must not be empty'],
  ['{"id":"","turns":[{"from":"visitor","text":"secret words"}]}', 'id: must not be empty'],
  ['{"id":"x","turns":[{"from":"bot","text":"secret words"}]}', 'turns[0].from: must be one of visitor, agent, note'],
  ['{"id":"x","turns":[{"from":"visitor","text":" "}]}', 'turns[0].text: must not be empty'],
  ['{"id":"x","turns":[{"from":"visitor","text":"secret words","at":"yesterday"}]}', 'turns[0].at: must be an instant'],
  ['{"id":"x","turns":[{"from":"visitor","text":"secret words","mood":"good"}]}', 'turns[0].mood: is not known here'],
  ['{"id":"x","turns":[{"from":"visitor","text":"secret words","\\u001b[2J\\u202emood":"good"}]}', 'mood: is not known here'],
  ['{"id":"x","topics":["a",".."],"turns":[{"from":"visitor","text":"secret words"}]}', 'topics[1]: must not be . or ..'],
  ['{"id":"x","turns":[{"from":"visitor","text":"secret words","agentId":"a"}]}', 'turns[0].agentId: must be absent'],
  ['{"id":"x","turns":[{"from":"agent","text":"secret words","agentId":"nobody"}]}', 'no agent has the id nobody'],
  ['{"id":"x","turns":[{"from":"agent","text":"secret words","agentId":"team"}]}', 'no agent has the id team'],
  ['{"id":"x","id":"y","turns":[{"from":"visitor","text":"secret words"}]}', 'a name appears twice'],
  ['{"id":"x","turns":[{"from":"visitor","text":"secret words","at":"2999-01-01T00:00:00Z"}]}', 'turns[0].at: lies in the future'],
  [
    '{"id":"x","turns":[{"from":"visitor","text":"secret words","at":"2024-01-02T00:00:00Z"},{"from":"visitor","text":"b","at":"2024-01-01T00:00:00Z"}]}',
    'turns[1].at: is before what comes before it',
  ],
  [
    '{"id":"x","createdAt":"2024-01-02T00:00:00Z","turns":[{"from":"visitor","text":"secret words","at":"2024-01-01T00:00:00Z"}]}',
    'turns[0].at: is before what comes before it',
  ],
  [
    '{"id":"x","status":"snoozed","turns":[{"from":"visitor","text":"secret words"}]}',
    'status: must be one of open, pending, resolved, closed',
  ],
  [
    '{"id":"x","visitor":{"email":"nobody"},"turns":[{"from":"visitor","text":"secret words"}]}',
    'visitor.email: must be an e-mail address',
  ],
  [
    JSON.stringify({
      id: 'too many',
      topics: Array.from({ length: 60 }, (_, i) => `topic ${i}`),
      tags: Array.from({ length: 60 }, (_, i) => `tag ${i}`),
      turns: [{ from: 'visitor', text: 'secret words' }],
    }),
    'topics and tags: must be at most 100 together',
  ],
  ['{"id":"x","visitor":{"companyId":"nowhere"},"turns":[{"from":"visitor","text":"secret words"}]}', 'company'],
  [
    '{"id":"x","visitor":{"id":"none","avatarUrl":"ftp://a.example"},"turns":[{"from":"visitor","text":"secret words"}]}',
    'visitor.id: must be 1 to 128 of A-Z a-z 0-9 . _ : @ -, and not ., .. or none; visitor.avatarUrl: must be an http or https address',
  ],
  [
    '{"id":"x","customAttributes":{"order":12345678901234567,"fine":0.1},"turns":[{"from":"visitor","text":"secret words"}]}',
    'customAttributes.order: is a number that would be rounded to 12345678901234568',
  ],
  [
    '{"id":"x","customAttributes":{"a":1,"plan":{"name":"pro"}},"tags":["vip",5],"turns":[{"from":"visitor","text":"secret words"},null]}',
    'tags[1]: must be a text; turns[1]: must be an object; customAttributes.plan: must be a text, a number, true, false or null',
  ],
  [Buffer.from([0x22, 0xff, 0x22]), 'not valid UTF-8'],
  [`"${'x'.repeat(17 * 1024 * 1024)}"`, 'longer than 16777216 bytes'],
];

test(
  'bad lines are named with their number and reason, never with their text, and the others are imported',
  async () => {
    const organizationId = await organization();
    await backend.transactor.transact(
      assigneeAggregate,
      'team',
      systemContext(organizationId, randomIds.next()),
      createTeam({ name: 'Team', agentIds: [] }),
    );
    const good = (n: number) => `${JSON.stringify(dialogue(n))}\n`;
    // An empty line is none, but it is counted as editors do; the last line lacks its newline.
    const parts: (string | Buffer)[] = ['\ufeff', good(0), '\r\n'];
    for (const [line] of BAD) parts.push(line, '\n');
    parts.push(good(1), JSON.stringify(dialogue(2)));
    const ended = await importing(
      Buffer.concat(parts.map((part) => Buffer.from(part))),
      organizationId,
      '--no-wait',
      '--on-bad-line',
      'skip',
    );
    expect({ code: ended.code, stderr: ended.code === 0 ? '' : ended.stderr }).toEqual({ code: 0, stderr: '' });
    expect(ended.summary).toMatchObject({ lines: BAD.length + 3, imported: 3, present: 0, bad: BAD.length });
    const byLine = new Map(ended.summary.badLines.map(({ line, reason }) => [line, reason]));
    BAD.forEach(([, why], i) => {
      expect({ line: i + 3, reason: byLine.get(i + 3) }).toEqual({ line: i + 3, reason: expect.stringContaining(why) });
      expect(ended.stderr).toContain(`line ${i + 3}: ${printable(byLine.get(i + 3) ?? '')}\n`);
    });
    expect(ended.stderr + ended.stdout).not.toContain('secret words');
    expect((ended.stderr + ended.stdout).replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u202e]/u);
    // A bad line leaves nothing behind that would stand in the way of a mended one.
    const mended = await importing(file([{ ...dialogue(9), id: 'too many' }]), organizationId, '--no-wait');
    expect(mended).toMatchObject({ code: 0, summary: { lines: 1, imported: 1, bad: 0 } });

    // The same id with other words, also when it comes twice in one file.
    const changed = { ...dialogue(0), turns: [{ from: 'visitor', text: 'Other words' }] };
    // The order of names is no part of a dialogue.
    const attributed = (customAttributes: object) => ({ ...dialogue(7), customAttributes });
    const twice = await importing(
      file([changed, attributed({ plan: 'pro', seats: 5 }), { ...changed, id: 'd-7' }, attributed({ seats: 5, plan: 'pro' })]),
      organizationId,
      '--no-wait',
      '--on-bad-line',
      'skip',
    );
    expect(twice).toMatchObject({ code: 0, summary: { lines: 4, imported: 1, present: 1, bad: 2 } });
    expect(twice.summary.badLines.map(({ line, reason }) => [line, reason] as const).toSorted(([a], [b]) => a - b)).toEqual([
      [1, 'another conversation was imported under this id before'],
      [3, 'another conversation was imported under this id before'],
    ]);
  },
  CLI_MS,
);

test(
  'without skip the first bad line ends the import with 1, and what came before it stays',
  async () => {
    const organizationId = await organization();
    const lines = [dialogue(1), dialogue(2), { id: 'bad' }, ...Array.from({ length: 200 }, (_, n) => dialogue(n + 10))];
    const ended = await importing(file(lines), organizationId, '--no-wait');
    expect(ended).toMatchObject({ code: 1, summary: { lines: 3, imported: 2, bad: 1, badLines: [{ line: 3 }] } });
    expect(ended.stderr).toMatch(/^line 3: turns: /);
  },
  CLI_MS,
);

test(
  'a file that is not there, or cut off, ends with 1 and a sentence',
  async () => {
    const organizationId = await organization();
    const packed = gzipSync(file(dialogues));
    const cut = await threadlog(
      ['import', '-', '--organization', organizationId, '--no-wait'],
      environment,
      packed.subarray(0, packed.length - 200),
    );
    const missing = await threadlogHere(['import', join(folder, 'none'), '--organization', organizationId], environment);
    const folderGiven = await threadlogHere(['import', folder, '--organization', organizationId], environment);
    expect(missing).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('there is no such file') });
    expect(folderGiven).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('it is a folder') });
    expect(cut).toMatchObject({ code: 1, stdout: '' });
    expect(cut.stderr).toMatch(/standard input cannot be read after line \d+: the gzip data is cut off/);
    // What could be read is there, and the whole file brings the rest.
    const whole = await importing(packed, organizationId, '--no-wait');
    expect(whole).toMatchObject({ code: 0, summary: { bad: 0 } });
    expect(whole.summary.present + whole.summary.imported).toBe(60);
  },
  CLI_MS,
);

test(
  'killed at any point and run again, it leaves what an undisturbed run leaves',
  async () => {
    const many = Array.from({ length: 400 }, (_, n) => dialogue(n, n % 50 === 0 ? 900 : undefined));
    // Every derived id follows from the organization's, so the undisturbed run needs a log of its own.
    const id = `killed-${randomBytes(4).toString('hex')}`;
    const expected = await (async () => {
      const other = await createDatabase();
      const env = { ...environment, DATABASE_URL: other.url, EVENTSTORE_URL: '' };
      const undisturbed = await openForReading(env);
      try {
        const { transactor, database: db, keys, masterKey } = undisturbed;
        const apiKeys = new ApiKeyWriter(transactor, db, new ApiKeyLookup(db), masterKey, new AssigneeReader(transactor));
        await new OrganizationWriter(transactor, db, keys, apiKeys).createOrganization('Test', { id });
        await threadlog(['import', '-', '--organization', id, '--no-wait'], env, file(many));
        return await history(undisturbed, id);
      } finally {
        await undisturbed.close();
        await other.drop();
      }
    })();
    const organizationId = await organization(id);
    const total = Object.values(expected).flat().length;
    const arrived = await countEvents(backend, organizationId);
    let last = 0;
    for (const share of [0.001, 0.3, 0.31, 0.7]) {
      const running = startThreadlog(['import', '-', '--organization', organizationId, '--no-wait'], environment, file(many));
      const enough = Math.max(last, share * total);
      await eventually(() => arrived.count() > enough, CLI_MS);
      running.child.kill('SIGKILL');
      const ended = await running.ended;
      // Otherwise there was nothing to disturb.
      expect(ended.signal).toBe('SIGKILL');
      last = arrived.count();
    }
    await arrived.stop();
    const finished = await importing(file(many), organizationId);
    expect(finished).toMatchObject({ code: 0, stderr: '', summary: { lines: 400, bad: 0 } });
    expect(finished.summary.present).toBeGreaterThan(0);
    expect(finished.summary.imported).toBeGreaterThan(0);
    expect(await history(backend, organizationId)).toEqual(expected);
    const [row] = await backend.database
      .selectFrom(backend.readModels.view(conversationsTable).as('c'))
      .select(({ fn }) => [fn.countAll<number>().as('conversations'), fn.sum<number>('message_count').as('messages')])
      .where('organization_id', '=', organizationId)
      .execute();
    expect(row).toEqual({
      conversations: 400,
      messages: many.reduce((sum: number, one) => sum + (one as { turns: unknown[] }).turns.length, 0),
    });
  },
  2 * CLI_MS,
);
