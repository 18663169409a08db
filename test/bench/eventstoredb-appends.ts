import { randomUUID } from 'node:crypto';
import { type AppendResult, EventStoreDBClient, jsonEvent, NO_STREAM } from '@eventstore/db-client';

/** Appends per second of the official client alone: single events, each to the end of its own stream, `writers` at a time. */
export async function bareEventStoreDbAppends(
  url: string,
  writers: number,
  seconds: number,
  data: string,
  metadata: string,
): Promise<number> {
  const client = EventStoreDBClient.connectionString(url);
  const run = randomUUID();
  const parsed = { data: JSON.parse(data) as Record<string, unknown>, metadata: JSON.parse(metadata) as Record<string, unknown> };
  const started = performance.now();
  const end = started + seconds * 1000;
  let appended = 0;
  await Promise.all(
    Array.from({ length: writers }, async (_, writer) => {
      let expectedRevision: bigint | typeof NO_STREAM = NO_STREAM;
      while (performance.now() < end) {
        const result: AppendResult = await client.appendToStream(`bench-${run}-${writer}`, jsonEvent({ type: 'MessageSent', ...parsed }), {
          expectedRevision,
        });
        expectedRevision = result.nextExpectedRevision;
        appended++;
      }
    }),
  );
  const perSecond = (appended / (performance.now() - started)) * 1000;
  await client.dispose();
  return perSecond;
}
