import { type TestApi, startApi } from '../support/api.js';

/* Days whose midnight comes twice, or never: clocks that are set back or forward over midnight, and a day that a country left out. */

const HALF_HOUR = 1_800_000;

const CHANGES = [
  ['Pacific/Apia', '2011-12-29T04:00:00Z', '2011-12-31T12:00:00Z', 8 * HALF_HOUR],
  ['America/Sao_Paulo', '2018-02-17T23:00:00Z', '2018-02-18T05:00:00Z', HALF_HOUR],
  ['America/Havana', '2026-03-08T03:10:00Z', '2026-03-08T07:00:00Z', HALF_HOUR],
  ['Atlantic/Azores', '2026-10-24T22:10:00Z', '2026-10-25T03:00:00Z', HALF_HOUR],
  ['America/Havana', '2026-11-01T02:10:00Z', '2026-11-01T07:00:00Z', HALF_HOUR],
] as const;

let api: TestApi;
/** When each message was received. */
const received: number[] = [];
const instants = (from: string, to: string, step: number) =>
  Array.from({ length: Math.ceil((Date.parse(to) - Date.parse(from)) / step) }, (_, i) => Date.parse(from) + i * step);

beforeAll(async () => {
  api = await startApi();
  for (const [, from, to, step] of CHANGES)
    for (const at of instants(from, to, step)) {
      api.clock.stopAt(at);
      await api.expect(201, 'POST', '/conversations', { body: { visitor: {}, message: 'x' } });
      received.push(at);
    }
  api.clock.goOn();
}, 120_000);
afterAll(() => api.stop());

interface Row {
  readonly start: string;
  readonly count: number;
}

async function ask<T>(path: string, query: Readonly<Record<string, string>>): Promise<T> {
  const headers = { 'x-min-position': await api.backend.store.head() };
  return (await api.expect(200, 'GET', `/analytics/${path}?${new URLSearchParams(query).toString()}`, { headers })).body as T;
}
const rows = async (query: Readonly<Record<string, string>>) =>
  (await ask<{ data: Row[] }>('metrics/messages_received', { interval: 'day', ...query })).data;
const behind = async (query: Readonly<Record<string, string>>) =>
  (await ask<{ meta: { count: number } }>('metrics/messages_received/conversations', { interval: 'day', limit: '1', ...query })).meta.count;

const dayOf = (timeZone: string, at: number) =>
  new Intl.DateTimeFormat('en-CA', { timeZone, year: 'numeric', month: '2-digit', day: '2-digit' }).format(at);

test.each(CHANGES)(
  'in %s around %s each message counts in its day, and opens there',
  async (timezone, from, to) => {
    const end = Date.parse(to);
    for (const begin of instants(from, to, HALF_HOUR)) {
      const query = { timezone, from: new Date(begin).toISOString(), to };
      const data = await rows(query);
      const starts = data.map(({ start }) => Date.parse(start));
      const asked = received.filter((at) => at >= begin && at < end);
      expect(starts).toEqual([...new Set(starts)].sort((a, b) => a - b));
      expect(starts[0]).toBeLessThanOrEqual(begin);
      expect(data.map(({ count, start }) => [dayOf(timezone, Date.parse(start)), count])).toEqual(
        data.map(({ start }) => {
          const day = dayOf(timezone, Date.parse(start));
          return [day, asked.filter((at) => dayOf(timezone, at) === day).length];
        }),
      );
      expect(data.reduce((sum, { count }) => sum + count, 0)).toBe(asked.length);
      for (const { start, count } of data) expect(await behind({ ...query, start })).toBe(count);
    }
  },
  60_000,
);

test('a midnight that comes twice is the first of the two, as a bound and as the start of today', async () => {
  const first = '2026-11-01T04:00:00.000Z';
  const query = { timezone: 'America/Havana', from: '2026-11-01', to: '2026-11-02' };
  expect((await rows(query)).map(({ start }) => start)).toEqual([first]);
  const { meta } = await ask<{ meta: { from: string } }>('metrics/messages_received', query);
  expect(meta.from).toBe(first);
  const [opened] = (await api.expect(200, 'GET', '/conversations?limit=1')).body.data as [{ id: string }];
  api.clock.stopAt(Date.parse('2026-11-01T04:10:00Z'));
  await api.expect(200, 'PUT', `/conversations/${opened.id}`, { body: { status: 'resolved' } });
  api.clock.stopAt(Date.parse('2026-11-01T05:20:00Z'));
  const { data } = await ask<{ data: { resolvedToday: number } }>('conversations', { timezone: 'America/Havana' });
  api.clock.goOn();
  expect(data.resolvedToday).toBe(1);
});

test('a day that did not exist is no row, and its bounds are where it would have been', async () => {
  const query = { timezone: 'Pacific/Apia', from: '2011-12-29', to: '2012-01-01' };
  expect((await rows(query)).map(({ start }) => start)).toEqual(['2011-12-29T10:00:00.000Z', '2011-12-30T10:00:00.000Z']);
});

test('an hour that comes before a second midnight belongs to the day that began with the first', async () => {
  // In 2010, clocks in St. John's went from 00:01 back to 23:01.
  const query = { timezone: 'America/St_Johns', to: '2010-11-08T12:00:00Z' };
  const starts = async (from: string) => (await rows({ ...query, from })).map(({ start }) => start);
  expect(await starts('2010-11-07T01:00:00Z')).toEqual([
    '2010-11-06T02:30:00.000Z',
    '2010-11-07T02:30:00.000Z',
    '2010-11-08T03:30:00.000Z',
  ]);
  expect(await starts('2010-11-07T03:00:00Z')).toEqual(['2010-11-07T02:30:00.000Z', '2010-11-08T03:30:00.000Z']);
  expect((await rows({ ...query, from: '2010-11-06', to: '2010-11-07T03:00:00Z' })).map(({ start }) => start)).toEqual([
    '2010-11-06T02:30:00.000Z',
    '2010-11-07T02:30:00.000Z',
  ]);
});
