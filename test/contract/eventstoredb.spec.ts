import { openEventStoreDbEventStore } from '../../src/event-store/eventstoredb/eventstoredb-event-store.js';
import { startEventStoreDb } from '../support/eventstoredb-server.js';
import type { EventStoreDbServer } from '../support/eventstoredb-server.js';
import { eventStoreContract } from './event-store.contract.js';

const given = process.env['EVENTSTORE_URL'];
const executable = process.env['EVENTSTORE_BIN'];

if (given || executable) {
  let own: Promise<EventStoreDbServer> | undefined;
  const url = async () => given || (await (own ??= startEventStoreDb(executable ?? ''))).url;
  eventStoreContract({
    name: 'eventstoredb',
    open: async () => openEventStoreDbEventStore({ url: await url() }),
    server: {
      address: async () => {
        const { hostname, port } = new URL(await url());
        return { host: hostname, port: Number(port) || 2113 };
      },
      openAt: async (host, port) => {
        const through = new URL(await url());
        through.host = `${host}:${port}`;
        return openEventStoreDbEventStore({ url: through.href });
      },
    },
    stop: async () => (await own)?.dispose(),
  });
} else {
  it('EventStoreDB: NOT RUN, because neither EVENTSTORE_URL nor EVENTSTORE_BIN is set', () => {
    process.stderr.write('EventStoreDB: NOT RUN (test/contract/eventstoredb.spec.ts needs EVENTSTORE_URL or EVENTSTORE_BIN)\n');
    expect(given || executable).toBeFalsy();
  });
}
