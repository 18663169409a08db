import { readFileSync } from 'node:fs';
import {
  type Conversation,
  conversationAggregate,
  type ConversationEvent,
  evolveConversation,
  initialConversation,
} from '../../src/conversations/conversation.js';
import { unsealConversation, unsealConversationEvent } from '../../src/conversations/conversation.sealing.js';
import { decode, metadataOf, UnknownEvent } from '../../src/event-store/aggregate.js';
import type { Position, StoredEvent, StreamName } from '../../src/event-store/event-store.js';
import { CHAIN_START, verifyLink } from '../../src/event-store/hash-chain.js';
import { DataKey } from '../../src/security/sealing.js';

/*
 * A conversation as the log holds it since its first day, byte for byte, and what it reads as. Events are kept for ever, so none of this
 * may change: a new type or version adds its example to golden-events.json, and an example that is there is never edited.
 */
interface Golden {
  stream: StreamName;
  visitorKey: string;
  events: { stored: Pick<StoredEvent, 'id' | 'type' | 'revision' | 'data' | 'metadata'>; reads: object }[];
  state: Conversation<unknown>;
}
const golden = JSON.parse(readFileSync(new URL('golden-events.json', import.meta.url), 'utf8')) as Golden;
const { codec } = conversationAggregate;
const key = new DataKey(Buffer.from(golden.visitorKey, 'base64'));
const stored = golden.events.map((one): StoredEvent => ({ ...one.stored, stream: golden.stream, position: '' as Position }));

test('every type and version has a stored example', () => {
  const examples = new Set(stored.map((event) => `${event.type} v${metadataOf(event).schemaVersion}`));
  const known = Object.entries(codec.versions).flatMap(([type, versions]) =>
    Array.from({ length: versions }, (_, version) => `${type} v${version + 1}`),
  );
  expect(known.filter((one) => !examples.has(one))).toEqual([]);
});

test.each(golden.events.map(({ stored: { revision, type }, reads }) => [revision, type, reads] as const))(
  'revision %i, %s, reads as it always did',
  (revision, _, reads) => {
    const event = decode(codec, stored[revision] as StoredEvent);
    expect(unsealConversationEvent(event, key).data).toEqual(reads);
  },
);

test('they fold to the state that they always did', () => {
  const state = stored.map((event) => decode(codec, event)).reduce<Conversation>(evolveConversation, initialConversation);
  expect(unsealConversation(state, key)).toEqual(golden.state);
});

test('the hash of each still follows from its bytes and the hash before', () => {
  let previous: string = CHAIN_START;
  for (const event of stored) {
    const hash = verifyLink(previous, event);
    expect(hash).toBe(metadataOf(event).hash);
    previous = hash ?? '';
  }
});

/** Stored values that a version of the code may not forget. */
const VALUES: readonly (readonly [ConversationEvent['type'], string, readonly string[]])[] = [
  ['ConversationOpened', 'channel', ['api', 'widget', 'import']],
  ['ConversationOpened', 'priority', ['urgent', 'high', 'normal', 'low']],
  ['MessageReceived', 'contentType', ['text', 'attachment', 'card']],
  ['MessageSent', 'author.type', ['agent', 'apiKey', 'automation']],
  ['NoteAdded', 'author.type', ['agent', 'apiKey', 'automation']],
  ['ConversationStatusChanged', 'from', ['open', 'pending', 'snoozed', 'resolved', 'closed']],
  ['ConversationStatusChanged', 'to', ['open', 'pending', 'resolved', 'closed']],
  ['ConversationStatusChanged', 'reason', ['visitor_message', 'agent', 'automation', 'snooze_elapsed', 'import']],
  ['ConversationSnoozed', 'from', ['open', 'pending', 'snoozed']],
  ['ConversationSnoozed', 'until', ['2026-01-16T09:00:00.000Z', 'next_reply']],
  ['ConversationAssigned', 'assignee.type', ['agent', 'team']],
  ['ConversationUnassigned', 'reason', ['asked', 'archived']],
  ['ConversationTeamChanged', 'reason', ['asked', 'archived']],
];
test.each(VALUES.flatMap(([type, path, values]) => values.map((value) => [type, path, value] as const)))(
  '%s may hold %s = %s',
  (type, path, value) => {
    const example = stored.find((event) => event.type === type) as StoredEvent;
    const data = JSON.parse(example.data) as Record<string, unknown>;
    const names = path.split('.');
    const field = names.pop() as string;
    const holder = names.reduce((at, name) => at[name] as Record<string, unknown>, data);
    expect(holder[field]).toBeDefined();
    holder[field] = value;
    const read = decode(codec, { ...example, data: JSON.stringify(data) });
    expect(read.data).toEqual(data);
  },
);

test('a message may hold attachments alone', () => {
  const example = stored.find(({ type }) => type === 'MessageReceived') as StoredEvent;
  const { content: attachments, ...data } = JSON.parse(example.data) as Record<string, string>;
  const alone = { ...data, contentType: 'attachment', attachments };
  expect(decode(codec, { ...example, data: JSON.stringify(alone) }).data).toEqual(alone);
});

test('an assignment may say by which inbox it was made', () => {
  const example = stored.find(({ type }) => type === 'ConversationAssigned') as StoredEvent;
  for (const type of ['round_robin', 'least_busy']) {
    const data = { ...(JSON.parse(example.data) as object), reason: { type, inboxId: 'support' } };
    expect(decode(codec, { ...example, data: JSON.stringify(data) }).data).toEqual(data);
  }
});

test.each([
  ['an unknown type', { type: 'ConversationMerged' }],
  ['a version that is not there yet', { metadata: JSON.stringify({ schemaVersion: 2 }) }],
  ['a version before the first', { metadata: JSON.stringify({ schemaVersion: 0 }) }],
  ['another shape', { data: '{"visitorId":7}' }],
  ['what is no JSON', { data: '{"visitorId":"Ada Lovelace' }],
])('%s is refused and not guessed at', (_, change) => {
  const event = { ...(stored[0] as StoredEvent), ...change };
  const fault = caught(() => decode(codec, event));
  expect(fault).toBeInstanceOf(UnknownEvent);
  expect(fault.message).toContain(`${event.stream} revision ${event.revision}: `);
  // The message goes to the log, where no text of an event may be.
  expect(fault.message).not.toContain('Ada');
  expect(fault.cause).toBeUndefined();
});

function caught(work: () => unknown): Error {
  try {
    work();
  } catch (error) {
    return error as Error;
  }
  throw new Error('it was taken');
}
