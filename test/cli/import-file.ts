import { type Backend, openBackend } from '../../src/backend.js';
import { readConfig } from '../../src/config.js';
import { type ConversationEvent, conversationAggregate } from '../../src/conversations/conversation.js';
import { unsealConversationEvent } from '../../src/conversations/conversation.sealing.js';
import type { Recorded } from '../../src/event-store/aggregate.js';
import { parseStreamName, type StoredEvent } from '../../src/event-store/event-store.js';
import { createLogger } from '../../src/log.js';
import { visitorAggregate, type VisitorEvent } from '../../src/visitors/visitor.js';
import { unsealVisitorEvent } from '../../src/visitors/visitor.sealing.js';
import { beganAt, beginReadModelsAtHead } from '../support/begin-at-head.js';

/** A dialogue in every shape that a file may give it; many of them share visitors. */
export function dialogue(n: number, turns = 2 + (n % 5)): object {
  const began = Date.UTC(2024, 0, 1 + (n % 300), 8);
  const at = (i: number) => new Date(began + i * 60_000).toISOString();
  return {
    id: `d-${n}`,
    topics: n % 2 === 0 ? ['billing', `topic ${n % 7}`] : [],
    ...(n % 3 === 0 ? { tags: ['billing', 'old'] } : {}),
    turns: Array.from({ length: turns }, (_, i) => ({
      from: i % 2 === 0 ? 'visitor' : i % 6 === 5 ? 'note' : 'agent',
      text: `Turn ${i} of conversation ${n}: naïve façade, "quotes", 好 👍`,
      ...(n % 4 === 1 ? { at: at(i) } : {}),
    })),
    ...(n % 5 === 0 ? { visitor: { email: `person-${n % 15}@example.com`, name: `Person ${n}`, plan: 'pro' } } : {}),
    ...(n % 5 === 1 ? { visitor: { userId: `user-${n % 4}`, attributes: { age: n, vip: n % 2 === 0 } } } : {}),
    ...(n % 5 === 2 ? { visitor: { name: `Only here ${n}` } } : {}),
    ...(n % 4 === 2 ? { createdAt: at(0) } : {}),
    ...(n % 6 === 0 ? { status: 'resolved' } : n % 6 === 3 ? { status: 'closed' } : {}),
    ...(n % 7 === 0 ? { subject: `Subject ${n}`, priority: 'urgent', customAttributes: { order: n, gift: true, note: 'wrap it' } } : {}),
  };
}

export const file = (dialogues: readonly unknown[]) => dialogues.map((one) => `${JSON.stringify(one)}\n`).join('');

/** On the EventStoreDB that was given to the tests, unless the environment names a log of its own. */
export async function openForReading(environment: Readonly<Record<string, string>>): Promise<Backend> {
  const store = process.env['EVENTSTORE_URL'];
  const config = readConfig({ ...(store === undefined ? {} : { EVENTSTORE_URL: store }), ...environment });
  const backend = await openBackend(config, createLogger('silent'), { name: 'test' });
  await beginReadModelsAtHead(backend);
  return backend;
}

/**
 * What the log holds of imported conversations, opened, by stream: nothing that differs between two runs of the same file, such as message
 * ids, the time of the import, ciphertexts and the hashes over them.
 */
export async function history(backend: Backend, organizationId: string): Promise<Record<string, unknown[]>> {
  const streams: Record<string, unknown[]> = {};
  const end = await backend.store.head();
  const reading = new AbortController();
  for await (const batch of backend.store.feed(beganAt(backend), { maxEvents: 5_000, signal: reading.signal })) {
    for (const stored of batch.events) {
      const name = parseStreamName(stored.stream);
      if (name?.organizationId !== organizationId || (name.kind !== 'conversation' && name.kind !== 'visitor')) continue;
      const metadata = JSON.parse(stored.metadata) as Recorded<ConversationEvent>['metadata'];
      const key = metadata.keyId === undefined ? undefined : await backend.keys.find(organizationId, metadata.keyId);
      const codec = name.kind === 'conversation' ? conversationAggregate.codec : visitorAggregate.codec;
      const event = { ...stored, ...codec.decode(stored.type, metadata.schemaVersion, JSON.parse(stored.data)), metadata };
      const opened =
        name.kind === 'conversation'
          ? unsealConversationEvent(event as unknown as Recorded<ConversationEvent>, key)
          : unsealVisitorEvent(event as unknown as Recorded<VisitorEvent>, key);
      const { messageId: _, ...data } = opened.data as { messageId?: string };
      const { commandId, actor, imported, occurredAt } = metadata;
      (streams[`${name.kind} ${name.id}`] ??= []).push({
        revision: stored.revision,
        type: stored.type,
        data,
        commandId,
        actor,
        imported,
        occurredAt: occurredAt < '2025' ? occurredAt : 'now',
      });
    }
    if (batch.caughtUp || end === 'start' || batch.through >= end) break;
  }
  reading.abort();
  return streams;
}

const ofOrganization = (organizationId: string | undefined, events: readonly StoredEvent[]) =>
  organizationId === undefined ? events : events.filter(({ stream }) => parseStreamName(stream)?.organizationId === organizationId);

/** Counts what comes into the log from now on, as it comes: of one organization, or all of it where the log is the test's own. */
export async function countEvents(backend: Backend, organizationId?: string): Promise<{ count: () => number; stop: () => Promise<void> }> {
  const reading = new AbortController();
  const after = await backend.store.head();
  let count = 0;
  const counting = (async () => {
    for await (const { events } of backend.store.feed(after, { maxEvents: 500, signal: reading.signal }))
      count += ofOrganization(organizationId, events).length;
  })();
  return {
    count: () => count,
    async stop() {
      reading.abort();
      await counting;
    },
  };
}

/** Events of an organization, or all in the log. */
export async function eventCount(backend: Backend, organizationId?: string): Promise<number> {
  let events = 0;
  const end = await backend.store.head();
  if (end === 'start' || end === beganAt(backend)) return 0;
  const reading = new AbortController();
  for await (const batch of backend.store.feed(beganAt(backend), { maxEvents: 5_000, signal: reading.signal })) {
    events += ofOrganization(organizationId, batch.events).filter(({ position }) => position <= end).length;
    if (batch.caughtUp || batch.through >= end) break;
  }
  reading.abort();
  return events;
}
