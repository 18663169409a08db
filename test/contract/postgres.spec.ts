import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { createDatabase } from '../support/database.js';
import type { TestDatabase } from '../support/database.js';
import { eventStoreContract } from './event-store.contract.js';

let made: Promise<TestDatabase> | undefined;
const database = () => (made ??= createDatabase());

eventStoreContract({
  name: 'postgres',
  open: async () => openPostgresEventStore({ url: (await database()).url }),
  server: {
    address: async () => {
      const { hostname, port } = new URL((await database()).url);
      return { host: hostname, port: Number(port) };
    },
    openAt: async (host, port) => {
      const url = new URL((await database()).url);
      url.hostname = host;
      url.port = String(port);
      return openPostgresEventStore({ url: url.href });
    },
  },
  stop: async () => (await made)?.drop(),
});
