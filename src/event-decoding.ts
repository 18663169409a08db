import { conversationAggregate, type ConversationEvent } from './conversations/conversation.js';
import { unsealConversationEvent } from './conversations/conversation.sealing.js';
import { companyAggregate } from './companies/company.js';
import { apiKeyAggregate } from './api-keys/api-key.js';
import { cannedResponseAggregate } from './canned-responses/canned-response.js';
import { type Codec, decode, type DomainEvent, type Recorded } from './event-store/aggregate.js';
import { parseStreamName, type StoredEvent, type StreamKind } from './event-store/event-store.js';
import { headAggregate } from './event-store/log-head.js';
import { inboxAggregate } from './inboxes/inbox.js';
import { organizationAggregate } from './organizations/organization.js';
import type { DataKey } from './security/sealing.js';
import type { VisitorKeys } from './security/visitor-keys.js';
import { assigneeAggregate } from './team/assignee.js';
import { claimAggregate } from './commands/claim.js';
import { viewAggregate } from './views/view.js';
import { visitorAggregate, type VisitorEvent } from './visitors/visitor.js';
import { unsealVisitorEvent } from './visitors/visitor.sealing.js';
import type { DecodeBatch, ProjectedEvent } from './event-store/decoding.js';

/** The codec of every kind of stream that holds domain events: at start, each event type has exactly one. */
export const CODECS: Readonly<Partial<Record<StreamKind, Codec<DomainEvent>>>> = {
  conversation: conversationAggregate.codec as Codec<DomainEvent>,
  visitor: visitorAggregate.codec as Codec<DomainEvent>,
  company: companyAggregate.codec as Codec<DomainEvent>,
  inbox: inboxAggregate.codec as Codec<DomainEvent>,
  assignee: assigneeAggregate.codec as Codec<DomainEvent>,
  apikey: apiKeyAggregate.codec as Codec<DomainEvent>,
  cannedresponse: cannedResponseAggregate.codec as Codec<DomainEvent>,
  view: viewAggregate.codec as Codec<DomainEvent>,
  organization: organizationAggregate.codec as Codec<DomainEvent>,
  claim: claimAggregate.codec as Codec<DomainEvent>,
  head: headAggregate.codec as Codec<DomainEvent>,
};

/** Followers of one process are handed the same objects; each event is parsed once for all of them. */
const parsed = new WeakMap<StoredEvent, Omit<ProjectedEvent, 'skipped'>>();

/** @throws UnknownEvent, or Error for a stream of an unknown kind */
function parse(stored: StoredEvent): Omit<ProjectedEvent, 'skipped'> {
  const before = parsed.get(stored);
  if (before !== undefined) return before;
  const name = parseStreamName(stored.stream);
  const codec = name === undefined ? undefined : CODECS[name.kind];
  if (name === undefined || codec === undefined)
    throw new Error(`nothing is known of streams such as ${stored.stream.split('-', 1)[0] ?? ''}`);
  const event = { kind: name.kind, organizationId: name.organizationId, streamId: name.id, event: decode(codec, stored) };
  parsed.set(stored, event);
  return event;
}

/** Decodes a batch and leaves its personal fields sealed, for those who have no use for them. */
export const sealedDecoder: DecodeBatch = (events) => {
  const decoded: ProjectedEvent[] = [];
  const failed: { event: StoredEvent; error: Error }[] = [];
  for (const event of events) {
    try {
      decoded.push(parse(event));
    } catch (error) {
      failed.push({ event, error: error instanceof Error ? error : new Error(String(error)) });
    }
  }
  return Promise.resolve({ decoded, failed });
};

/** Decodes a batch and opens its personal fields: one query for all the keys that are not known yet. */
export function batchDecoder(keys: VisitorKeys): DecodeBatch {
  return async (events) => {
    const wanted = new Map<string, Set<string>>();
    const failed: { event: StoredEvent; error: Error }[] = [];
    const read: ProjectedEvent[] = [];
    for (const stored of events) {
      try {
        const one = parse(stored);
        read.push(one);
        const { keyId } = one.event.metadata;
        if (keyId !== undefined) {
          const ids = wanted.get(one.organizationId);
          if (ids === undefined) wanted.set(one.organizationId, new Set([keyId]));
          else ids.add(keyId);
        }
      } catch (error) {
        failed.push({ event: stored, error: error instanceof Error ? error : new Error(String(error)) });
      }
    }
    const found = new Map<string, Map<string, DataKey>>();
    for (const [organizationId, keyIds] of wanted) found.set(organizationId, await keys.findMany(organizationId, keyIds));

    const decoded: ProjectedEvent[] = [];
    for (const one of read) {
      const { keyId } = one.event.metadata;
      const key = keyId === undefined ? undefined : found.get(one.organizationId)?.get(keyId);
      try {
        decoded.push({ ...one, event: open(one.kind, one.event, key) });
      } catch (error) {
        const stored = events.find(({ id, stream }) => id === one.event.id && stream === one.event.stream);
        if (stored !== undefined) failed.push({ event: stored, error: error instanceof Error ? error : new Error(String(error)) });
      }
    }
    return { decoded, failed };
  };
}

function open(kind: StreamKind, event: Recorded<DomainEvent>, key: DataKey | undefined): Recorded<DomainEvent> {
  if (kind === 'conversation') return unsealConversationEvent(event as Recorded<ConversationEvent>, key);
  if (kind === 'visitor') return unsealVisitorEvent(event as Recorded<VisitorEvent>, key);
  return event;
}

/** Streams that are Threadlog's own business: claims on keys, and the signed heads of the log. */
const INTERNAL: readonly string[] = ['claim', 'head'];

const TOLD = Object.entries(CODECS).filter(([kind]) => !INTERNAL.includes(kind));

/** The streams that tell what happened in an organization. */
export const FEED_KINDS = TOLD.map(([kind]) => kind as StreamKind);

/** The types of their events, each once: an inbox and a conversation both have an InboxChanged. */
export const FEED_TYPES: readonly string[] = [...new Set(TOLD.flatMap(([, codec]) => Object.keys(codec.versions)))];
