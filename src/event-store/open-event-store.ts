import type { EventStore } from './event-store.js';

/** The only place that chooses the log's adapter. An adapter is loaded only when it is chosen. */
export async function openEventStore(options: {
  readonly databaseUrl: string;
  readonly eventstoreUrl: string | undefined;
  readonly name: string;
  readonly onWarning: (warning: string) => void;
}): Promise<EventStore> {
  if (options.eventstoreUrl !== undefined) {
    const { openEventStoreDbEventStore } = await import('./eventstoredb/eventstoredb-event-store.js');
    return openEventStoreDbEventStore({ url: options.eventstoreUrl, onWarning: options.onWarning });
  }
  const { openPostgresEventStore } = await import('./postgres/postgres-event-store.js');
  return openPostgresEventStore({ url: options.databaseUrl, applicationName: options.name, onWarning: options.onWarning });
}
