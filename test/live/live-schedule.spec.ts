import fc from 'fast-check';
import { type TestApi, startApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { LiveClient, type ReceivedFrame } from '../support/live-client.js';

// Two APIs over one database; only one of them writes the table of events.
let database: TestDatabase;
let apis: readonly [TestApi, TestApi];
beforeAll(async () => {
  database = await createDatabase();
  const environment = { MASTER_KEY: Buffer.alloc(32, 7).toString('base64') };
  apis = [await startApi({ database, environment }), await startApi({ database, environment })];
});
afterAll(async () => {
  for (const api of apis) await api.stop();
  await database.drop();
});

/** A client that goes on from the last frame it had, on any process, and keeps everything that it was ever told. */
class ResumingClient {
  readonly told: ReceivedFrame[] = [];
  client: LiveClient | undefined;
  since: string;

  constructor(since: string) {
    this.since = since;
  }

  async connect(api: TestApi): Promise<void> {
    if (this.client !== undefined) return;
    this.client = new LiveClient(`${api.url}/support/conversations/live?since=${this.since}`, {
      headers: { authorization: `Bearer ${apis[0].adminKey}` },
    });
    await this.client.ready();
  }

  /** Cut in the middle of whatever is on its way. */
  cut(): void {
    const { client } = this;
    if (client === undefined) return;
    client.ws.terminate();
    const got = [...client.told];
    this.told.push(...got);
    this.since = got.at(-1)?.position ?? this.since;
    this.client = undefined;
  }

  async finish(api: TestApi, last: string): Promise<ReceivedFrame[]> {
    this.client?.ws.resume();
    await this.connect(api);
    await eventually(() => (this.told.at(-1)?.position === last ? true : this.client?.told.at(-1)?.position === last), 20_000);
    this.cut();
    return this.told;
  }
}

const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant('write' as const), to: fc.nat(3), what: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('connect' as const), who: fc.nat(3), where: fc.nat(1) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('cut' as const), who: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('pause' as const), who: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('breathe' as const) }) },
);

test('whoever goes on by since after any cuts, on any process, is told everything once and in order', async () => {
  const [api] = apis;
  const ids: string[] = [];
  for (let i = 0; i < 4; i++) {
    const made = await api.expect(201, 'POST', '/conversations', { body: { visitor: { email: `s${i}@example.com` }, message: 'Hello' } });
    ids.push(made.body.data.id);
  }
  let n = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 40 }), async (steps) => {
      const began = String(await api.backend.store.head());
      const clients = Array.from({ length: 4 }, () => new ResumingClient(began));
      // Writes run beside everything else, on both processes.
      const writes: Promise<unknown>[] = [];
      for (const one of steps)
        switch (one.do) {
          case 'write': {
            const path = `/conversations/${ids[one.to] ?? ''}`;
            const writer = apis[n++ % 2] ?? api;
            writes.push(
              one.what === 0
                ? writer.expect(201, 'POST', `${path}/reply`, { key: api.adminKey, body: { message: `reply ${n}` } })
                : one.what === 1
                  ? writer.expect(200, 'POST', `${path}/tags`, { key: api.adminKey, body: { tags: [`t${n}`] } })
                  : one.what === 2
                    ? writer.expect(201, 'POST', `${path}/messages`, { key: api.adminKey, body: { message: `message ${n}` } })
                    : writer.expect(200, 'PUT', path, { key: api.adminKey, body: { subject: `subject ${n}` } }),
            );
            break;
          }
          case 'connect':
            await clients[one.who]?.connect(apis[one.where] ?? api);
            break;
          case 'cut':
            clients[one.who]?.cut();
            break;
          case 'pause':
            clients[one.who]?.client?.ws.pause();
            break;
          case 'breathe':
            await new Promise((resolve) => setTimeout(resolve, 5));
        }
      await Promise.all(writes);
      await api.expect(201, 'POST', `/conversations/${ids[0] ?? ''}/reply`, { body: { message: 'the last' } });

      // What the log holds, by another way.
      const page = await api.expect(200, 'GET', `/events?after=${began}&limit=1000`, {
        headers: { 'x-min-position': String(await api.backend.store.head()) },
      });
      const events = page.body.data as { position: string }[];
      const last = events.at(-1)?.position ?? '';
      const [told, ...others] = await Promise.all(clients.map((client, i) => client.finish(apis[i % 2] ?? api, last)));
      const positions = told?.map(({ position }) => position ?? '') ?? [];
      expect(positions).toEqual([...new Set(positions)].toSorted());
      expect([...new Set(positions.map((position) => position.split('.')[0]))]).toEqual(events.map(({ position }) => position));
      for (const other of others) expect(other.map(({ text }) => text)).toEqual(told?.map(({ text }) => text));
    }),
    { numRuns: 12 },
  );
}, 180_000);
