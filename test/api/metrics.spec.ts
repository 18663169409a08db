import pg from 'pg';
import { Metrics, startMetricsServer } from '../../src/metrics/metrics.js';
import { startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';

let database: TestDatabase;
let api: TestApi;
let sql: pg.Client;
beforeAll(async () => {
  database = await createDatabase();
  api = await startApi({ database });
  sql = new pg.Client({ connectionString: database.url });
  await sql.connect();
});
afterAll(async () => {
  await sql.end();
  await api.stop();
  await database.drop();
});

async function read(headers: Record<string, string> = {}): Promise<string> {
  const answer = await fetch(`${api.url}/metrics`, { headers });
  expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8']);
  return answer.text();
}

/** The value of one line; 0 when there is none yet. */
function valueOf(text: string, line: string): number {
  const found = text.split('\n').find((one) => one.startsWith(`${line} `));
  return found === undefined ? 0 : Number(found.slice(line.length + 1));
}
const gauge = async (line: string) => valueOf(await read(), line);

test('counts commands by their outcome, and requests by route and status', async () => {
  const before = await read();
  const { id } = (await api.expect(201, 'POST', '/conversations', { body: { visitor: {}, message: 'Hi' } })).body.data as { id: string };
  await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['a'] } });
  await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['a'] } });
  await api.expect(409, 'POST', `/conversations/${id}/rating`, { body: { rating: 5 } });
  await api.expect(404, 'GET', '/nothing-of-ours');
  const after = await eventually(async () => {
    const text = await read();
    // The answer is measured after the client has it.
    return valueOf(text, 'threadlog_http_request_duration_seconds_count{method="other",route="none",status="404"}') === 1
      ? text
      : undefined;
  });
  const grown = (line: string) => valueOf(after, line) - valueOf(before, line);
  const command = (name: string, outcome: string) =>
    grown(`threadlog_command_duration_seconds_count{command="${name}",outcome="${outcome}"}`);
  expect(command('OpenConversation', 'appended')).toBe(1);
  expect(command('AddTags', 'appended')).toBe(1);
  expect(command('AddTags', 'unchanged')).toBe(1);
  expect(command('RateConversation', 'refused')).toBe(1);
  const request = (method: string, route: string, status: number) =>
    grown(`threadlog_http_request_duration_seconds_count{method="${method}",route="${route}",status="${status}"}`);
  expect(request('POST', '/api/support/conversations', 201)).toBe(1);
  expect(request('POST', '/api/support/conversations/:id/tags', 200)).toBe(2);
  expect(request('POST', '/api/support/conversations/:id/rating', 409)).toBe(1);
  expect(grown('threadlog_state_cache_hits_total')).toBeGreaterThan(0);
  expect(grown('threadlog_state_cache_misses_total')).toBeGreaterThan(0);
  expect(valueOf(after, 'threadlog_state_cache_bytes')).toBeGreaterThan(0);
  expect(valueOf(after, 'threadlog_pool_connections_open')).toBeGreaterThan(0);
  expect(valueOf(after, 'threadlog_pool_waiting')).toBe(0);
  expect(valueOf(after, 'process_resident_memory_bytes')).toBeGreaterThan(0);
  // Prometheus takes this suffix for a counter's.
  expect(after.match(/^# TYPE \S+_total (?!counter)\S+$/gm)).toBeNull();
});

test('tells how far a group is behind, in events and in seconds, and that it has caught up', async () => {
  const lag = 'threadlog_projection_lag_events{group="core"}';
  await eventually(async () => (await gauge(lag)) === 0);
  const written = await gauge('threadlog_projection_batch_events_sum{group="core"}');
  // Whoever holds the checkpoint's row holds up the batch that would move it.
  await sql.query('begin');
  await sql.query('select 1 from read.checkpoints for update');
  try {
    const { id } = (await api.expect(201, 'POST', '/companies', { body: { id: 'behind', name: 'Acme' } })).body.data as { id: string };
    for (let i = 0; i < 4; i++) await api.expect(200, 'PUT', `/companies/${id}`, { body: { name: `Acme ${i}` } });
    expect(await gauge(lag)).toBe(5);
    api.clock.advance(90_000);
    const seconds = await gauge('threadlog_projection_lag_seconds{group="core"}');
    expect(seconds).toBeGreaterThanOrEqual(90);
    expect(seconds).toBeLessThan(180);
  } finally {
    await sql.query('rollback');
  }
  await eventually(async () => (await gauge(lag)) === 0);
  const text = await read();
  expect(valueOf(text, 'threadlog_projection_lag_seconds{group="core"}')).toBe(0);
  expect(valueOf(text, 'threadlog_projection_lag_known')).toBe(1);
  expect(valueOf(text, 'threadlog_projection_parked_streams{group="core"}')).toBe(0);
  expect(valueOf(text, 'threadlog_projection_batch_events_sum{group="core"}') - written).toBe(5);
  expect(valueOf(text, 'threadlog_projection_batch_duration_seconds_count{group="core"}')).toBeGreaterThan(0);
});

test('has no id and nothing that a client sent in it', async () => {
  const secret = 'Zanzibar';
  const { id, visitor } = (
    await api.expect(201, 'POST', '/conversations', {
      body: { visitor: { id: `${secret}-visitor`, name: secret }, message: secret },
      headers: { 'x-request-id': secret, 'idempotency-key': secret, 'user-agent': secret },
    })
  ).body.data as { id: string; visitor: { id: string } };
  for (const path of [
    `/conversations/${id}`,
    `/${secret}`,
    `/conversations/${secret}`,
    `/visitors/${visitor.id}`,
    `/conversations?q=${secret}`,
  ])
    await api.call('GET', path);
  await fetch(`${api.url}/${secret}`, { method: 'PUT' });
  const text = await read();
  for (const word of [secret, id, api.organizationId, api.adminKey, database.url]) expect(text).not.toContain(word);
  // Every label's value is one that the program has, and none was made by a request.
  for (const [, route = ''] of text.matchAll(/route="([^"]*)"/g)) expect(route).toMatch(/^(none|\/[\w/:.-]*)$/);
});

test('answers those who ask the process itself, and nobody who comes through a proxy', async () => {
  const forwarded: Record<string, string>[] = [{ 'x-forwarded-for': '192.0.2.1' }, { forwarded: 'for=192.0.2.1' }, { via: '1.1 proxy' }];
  for (const headers of forwarded) {
    const answer = await fetch(`${api.url}/metrics`, { headers });
    expect(answer.status).toBe(404);
    expect(await answer.json()).toMatchObject({ code: 'not_found' });
  }
});

test('has a port of its own where there is one, and then no other', async () => {
  const server = await startMetricsServer(api.app.get(Metrics), 0, '127.0.0.1');
  const { port } = server.address() as { port: number };
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8']);
    expect(await answer.text()).toContain('threadlog_projection_lag_events');
    expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(404);
  } finally {
    server.closeAllConnections();
    server.close();
  }
  const other = await startApi({ database, environment: { METRICS_PORT: '1', MASTER_KEY: api.backend.config.MASTER_KEY ?? '' } });
  try {
    expect((await fetch(`${other.url}/metrics`)).status).toBe(404);
  } finally {
    await other.stop();
  }
});
