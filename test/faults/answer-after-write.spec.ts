import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import { startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.js';

describe('a store that goes between a write and its answer', () => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let first: TestApi;
  /** Has no memory of what the first one did, so that it must read the visitor's stream for its answer. */
  let second: TestApi;

  beforeAll(async () => {
    database = await createDatabase();
    const { hostname, port } = new URL(database.url);
    proxy = await startTcpProxy({ host: hostname, port: Number(port) });
    const through = new URL(database.url);
    through.host = `${proxy.host}:${proxy.port}`;
    // The log and the keys are in the database that goes away, and both processes open them with one master key.
    const environment = { EVENTSTORE_URL: '', MASTER_KEY: randomBytes(32).toString('base64') };
    first = await startApi({ database, environment });
    second = await startApi({ database: { url: through.href }, environment });
  }, 60_000);
  afterAll(async () => {
    await second?.stop();
    await first?.stop();
    await proxy?.close();
    await database?.drop();
  }, 60_000);

  it('is not told as "nothing was written", and the same key gets the answer', async () => {
    const opened = await first.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'Noor' }, message: 'Hello' } });
    const { id, visitor } = opened.body.data as { id: string; visitor: { id: string } };
    const path = `/conversations/${id}/tags`;
    const request = { body: { tags: ['late'] }, key: first.adminKey, headers: { 'idempotency-key': 'late' } };

    // The projections of the second one speak of the visitor's stream too; they must be done with it before its name is waited for.
    await first.expect(200, 'GET', '/conversations', { headers: { 'x-min-position': String(opened.headers.get('x-position')) } });
    const swallowed = proxy.swallowRequestBefore(Buffer.from(`visitor-${first.organizationId}.${visitor.id}`));
    const asked = second.call('POST', path, request);
    await swallowed;
    await proxy.refuse();
    const answer = await asked;
    expect(await tagsAdded(id)).toBe(1);
    expect({ status: answer.status, code: answer.body.code }).toEqual({ status: 503, code: 'outcome_unknown' });
    expect(answer.headers.get('retry-after')).not.toBeNull();
    // What describes a change is for answers that tell of it.
    expect([answer.headers.get('etag'), answer.headers.get('x-position')]).toEqual([null, null]);

    proxy.heal();
    await proxy.accept();
    const again = await eventually(async () => {
      const given = await second.call('POST', path, request);
      return given.status === 503 ? undefined : given;
    }, 20_000);
    expect(again.status).toBe(200);
    expect(again.body.data.tags).toEqual(['late']);
    expect(await tagsAdded(id)).toBe(1);
  }, 60_000);

  async function tagsAdded(id: string): Promise<number> {
    const { body } = await first.expect(200, 'GET', `/conversations/${id}/events`);
    return (body.data as { type: string }[]).filter(({ type }) => type === 'TagsAdded').length;
  }
});

describe('a database that goes between the log and what is kept beside it', () => {
  let api: TestApi;
  beforeAll(async () => {
    api = await startApi({ environment: { EVENTSTORE_URL: '' } });
  });
  afterAll(() => api?.stop());

  /** Runs it while the database refuses such statements on a table as one that shuts down would. */
  async function without<T>(table: string, statement: 'insert' | 'update', run: () => Promise<T>): Promise<T> {
    const { database } = api.backend;
    await sql`
      create or replace function public.gone() returns trigger language plpgsql as $$
      begin raise exception 'terminating connection' using errcode = '57P01'; end $$`.execute(database);
    await sql`create trigger gone before ${sql.raw(statement)} on ${sql.table(table)} for each row execute function public.gone()`.execute(
      database,
    );
    try {
      return await run();
    } finally {
      await sql`drop trigger gone on ${sql.table(table)}`.execute(database);
    }
  }

  it('is not told as "nothing was written" by a key that was made, and the same request gets the key', async () => {
    const request = { body: { name: 'CI', role: 'agent' }, headers: { 'idempotency-key': 'ci' } };
    const answer = await without('keep.api_keys', 'insert', () => api.call('POST', '/api-keys', request));
    expect({ status: answer.status, code: answer.body.code }).toEqual({ status: 503, code: 'outcome_unknown' });
    const made = await api.expect(201, 'POST', '/api-keys', request);
    await api.expect(200, 'GET', '/conversations', { key: made.body.data.key as string });
  });

  it('nor by many conversations that were changed', async () => {
    const { id } = (await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'V' }, message: 'm' } })).body.data;
    const request = { body: { ids: [id], action: { type: 'addTags', tags: ['x'] } }, headers: { 'idempotency-key': 'many' } };
    const answer = await without('keep.idempotency', 'update', () => api.call('POST', '/conversations/bulk', request));
    expect({ status: answer.status, code: answer.body.code }).toEqual({ status: 503, code: 'outcome_unknown' });
    await api.expect(200, 'POST', '/conversations/bulk', request);
    const { body } = await api.expect(200, 'GET', `/conversations/${id}/events`);
    expect((body.data as { type: string }[]).filter(({ type }) => type === 'TagsAdded')).toHaveLength(1);
  });

  it('and is told so where nothing was written', async () => {
    const answer = await without('keep.idempotency', 'insert', () =>
      api.call('POST', '/api-keys', { body: { name: 'CD', role: 'agent' }, headers: { 'idempotency-key': 'cd' } }),
    );
    expect({ status: answer.status, code: answer.body.code }).toEqual({ status: 503, code: 'store_unavailable' });
  });
});
