import { INSIGHT_GROUP } from '../../src/read-models/groups.js';
import type { Position } from '../../src/event-store/event-store.js';
import { type Dimension, METRICS, type Metric } from '../../src/analytics/metrics.js';
import { type TestApi, startApi } from '../support/api.js';
import { eventsAfter } from '../support/events-after.js';
import { asLongAsAsked } from '../support/fault-length.js';
import { faultSeed, seededRandom } from '../support/seeded-random.js';
import { type Counted, Oracle, rowOf } from './oracle.js';
import { type RandomHistory, writeRandomHistory } from './random-history.js';

/*
 * Random histories, thousands of them with FAULT_MINUTES: every number of the API against the plainest computation from the raw events.
 */

const CONVERSATIONS = asLongAsAsked(400, 1_500);
const FROM = Date.parse('2026-10-12T00:00:00Z');
/** Atlantic/Azores and America/Havana set their clocks back over midnight within the days of the history. */
const ZONES = [
  'UTC',
  'Europe/Berlin',
  'America/New_York',
  'Asia/Kathmandu',
  'Australia/Lord_Howe',
  'Pacific/Auckland',
  'Atlantic/Azores',
  'America/Havana',
] as const;
const seed = faultSeed();

let api: TestApi;
let history: RandomHistory;
let oracle: Oracle;

beforeAll(async () => {
  api = await startApi();
  history = await writeRandomHistory(api, seededRandom(seed), { conversations: CONVERSATIONS, from: FROM, days: 20 });
  const head = await api.backend.store.head();
  expect(await api.backend.checkpoints.waitFor(INSIGHT_GROUP, head as Position, 60_000)).toBe('reached');
  oracle = new Oracle(await eventsAfter(api, api.beganAfter));
}, 180_000);
afterAll(() => api.stop());

interface Row {
  start?: string;
  key?: string | null;
  name?: string;
  status?: string;
}

const ask = async (path: string, query: Readonly<Record<string, string>>) =>
  (await api.expect(200, 'GET', `/analytics/${path}?${new URLSearchParams(query).toString()}`)).body;

const FORMATS = new Map<string, Intl.DateTimeFormat>();

/** The label of an instant's interval, by the clock on the wall of the zone. */
function labelOf(interval: string, timezone: string, at: number): string {
  let format = FORMATS.get(timezone);
  if (format === undefined) {
    const fields = { year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', timeZoneName: 'longOffset' } as const;
    FORMATS.set(timezone, (format = new Intl.DateTimeFormat('en-US', { timeZone: timezone, hourCycle: 'h23', ...fields })));
  }
  const parts = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, value]));
  const { year, month, day, hour, timeZoneName } = parts;
  if (interval === 'hour') return `${year}-${month}-${day} ${hour} ${timeZoneName}`;
  if (interval === 'day') return `${year}-${month}-${day}`;
  if (interval === 'month') return `${year}-${month}`;
  const midnight = new Date(Date.UTC(Number(year), Number(month) - 1, Number(day)));
  midnight.setUTCDate(midnight.getUTCDate() - ((midnight.getUTCDay() + 6) % 7));
  return midnight.toISOString().slice(0, 10);
}

const keysOf = (fact: Counted, by: Dimension): readonly (string | null)[] => {
  if (by === 'tag') return fact.tags.length === 0 ? [null] : fact.tags;
  return [(by === 'status' ? fact.status : fact[by]) ?? null];
};

test('every metric agrees with the raw events, by every dimension, interval, zone and filter', async () => {
  const random = seededRandom(seed + 1);
  let compared = 0;
  for (let i = 0; i < 98; i++) {
    const metric: Metric = METRICS[i % METRICS.length] ?? METRICS[0];
    const by = random.int(4) === 0 ? undefined : random.pick(metric.dimensions);
    const interval = random.pick([undefined, 'hour', 'day', 'week', 'month']);
    const timezone = random.pick(ZONES);
    const hours = metric.behind.working !== undefined && random.int(2) === 0 ? 'working' : 'calendar';
    const from = random.int(2) === 0 ? undefined : FROM + random.int(15) * 86_400_000 + random.int(86_400_000);
    const to = random.int(2) === 0 ? undefined : FROM + (16 + random.int(15)) * 86_400_000 + random.int(86_400_000);
    const filter = random.pick([
      {},
      {},
      { inboxId: random.pick(history.inboxes) },
      { assigneeId: random.pick([...history.agents, 'none', 'key-1']) },
      { teamId: random.pick(history.teams) },
      { tag: 'vip' },
      { priority: 'urgent' },
    ]) as Readonly<Record<string, string>>;
    const query = {
      timezone,
      ...filter,
      ...(by === undefined ? {} : { by }),
      ...(interval === undefined ? {} : { interval }),
      ...(hours === 'working' ? { hours } : {}),
      ...(from === undefined ? {} : { from: new Date(from).toISOString() }),
      ...(to === undefined ? {} : { to: new Date(to).toISOString() }),
    };
    const { data, meta } = (await ask(`metrics/${metric.name}`, query)) as { data: (Row & Record<string, unknown>)[]; meta: object };
    expect(meta).toMatchObject({ definitions: 1, timezone });

    const wanted = (fact: Counted) =>
      (filter['inboxId'] === undefined || fact.inbox === filter['inboxId']) &&
      (filter['assigneeId'] === undefined || (fact.agent ?? 'none') === filter['assigneeId']) &&
      (filter['teamId'] === undefined || fact.team === filter['teamId']) &&
      (filter['tag'] === undefined || fact.tags.includes(filter['tag'])) &&
      (filter['priority'] === undefined || fact.priority === filter['priority']);
    const expected = new Map<string, Counted[]>();
    const add = (label: string, fact: Counted) => {
      for (const key of by === undefined ? [undefined] : keysOf(fact, by)) {
        const status = metric.name === 'time_in_status' && by !== 'status' ? fact.status : undefined;
        const group = JSON.stringify([label, key, status]);
        const facts = expected.get(group);
        if (facts === undefined) expected.set(group, [fact]);
        else facts.push(fact);
      }
    };
    if (metric.name === 'backlog') {
      const ends: readonly (readonly [string, number])[] = interval === undefined ? [['', to ?? Infinity]] : await endsOf(query);
      for (const [label, end] of ends) for (const fact of oracle.backlog(end)) if (wanted(fact)) add(label, fact);
    } else
      for (const fact of oracle.counted)
        if (fact.metric === metric.name && wanted(fact) && (from === undefined || fact.at >= from) && (to === undefined || fact.at < to))
          add(interval === undefined ? '' : labelOf(interval, timezone, fact.at), fact);

    const rows = new Map(
      data
        // A series has a row also where nothing was counted.
        .filter(({ count }) => count !== 0 || expected.size === 0)
        .map(({ start, key, status, name: _name, ...numbers }) => {
          const label = start === undefined ? '' : metric.name === 'backlog' ? start : labelOf(interval ?? '', timezone, Date.parse(start));
          return [JSON.stringify([label, by === undefined ? undefined : key, status]), numbers];
        }),
    );
    const told = new Map([...expected].map(([group, facts]) => [group, rowOf(metric.name, facts, hours)]));
    if (told.size === 0) {
      for (const { count } of data) expect(count).toBe(0);
      continue;
    }
    compared += told.size;
    expect({ seed, query, metric: metric.name, rows: sorted(rows) }).toEqual({ seed, query, metric: metric.name, rows: sorted(told) });
    for (const row of [random.pick(data), random.pick(data)]) {
      const part = {
        ...(row.start === undefined ? {} : { start: row.start }),
        ...(by === undefined ? {} : typeof row.key === 'string' ? { key: row.key } : { noKey: 'true' }),
        ...(row.status === undefined ? {} : { inStatus: row.status }),
      };
      const { data: behind, meta: opened } = await ask(`metrics/${metric.name}/conversations`, { ...query, ...part, limit: '50' });
      expect({ seed, query, part, count: opened.count }).toEqual({ seed, query, part, count: row['count'] });
      expect(behind).toHaveLength(Math.min(50, opened.count as number));
    }
  }
  expect(compared).toBeGreaterThan(1_000);
}, 300_000);

/** When each interval of a series ends, by its start: the next one's start, or the end of the range. */
async function endsOf(query: Readonly<Record<string, string>>): Promise<[string, number][]> {
  const { by: _by, ...series } = query as { by?: string };
  const { data, meta } = (await ask('metrics/backlog', series)) as { data: { start: string }[]; meta: { to: string | null } };
  return data.map(({ start }, i) => [start, Date.parse(data[i + 1]?.start ?? meta.to ?? '9999-01-01T00:00:00Z')]);
}

const sorted = (rows: ReadonlyMap<string, unknown>) => Object.fromEntries([...rows].sort(([a], [b]) => (a < b ? -1 : 1)));

test('the six numbers agree with the raw events', async () => {
  for (const filter of [{}, { inboxId: history.inboxes[0] ?? '' }, { tag: 'vip' }, { assigneeId: history.agents[2] ?? '' }] as Record<
    string,
    string
  >[]) {
    const timezone = 'Australia/Lord_Howe';
    const today = Date.parse('2026-10-20T03:00:00Z');
    api.clock.stopAt(today);
    const { data } = (await ask('conversations', { timezone, ...filter })) as { data: Record<string, unknown> };
    api.clock.goOn();
    const wanted = (fact: Counted) =>
      (filter['inboxId'] === undefined || fact.inbox === filter['inboxId']) &&
      (filter['assigneeId'] === undefined || fact.agent === filter['assigneeId']) &&
      (filter['tag'] === undefined || fact.tags.includes(filter['tag']));
    const of = (metric: string) => oracle.counted.filter((fact) => fact.metric === metric && wanted(fact));
    const mean = (metric: string) => rowOf(metric, of(metric), 'calendar')['mean'];
    // Midnight of 20 October in Lord Howe, which is 11 hours ahead of UTC then.
    const midnight = Date.parse('2026-10-19T13:00:00Z');
    expect(data).toEqual({
      totalConversations: of('conversations_opened').length,
      openConversations: oracle.backlog(Infinity).filter((fact) => fact.status === 'open' && wanted(fact)).length,
      resolvedToday: of('conversations_resolved').filter(({ at }) => at >= midnight).length,
      avgFirstResponseTime: mean('first_response_time'),
      avgResolutionTime: mean('resolution_time'),
      csat: mean('rating'),
    });
  }
});
