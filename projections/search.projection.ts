import { LRUCache } from 'lru-cache';
import { type ConversationEvent, messageOfEvent } from '../src/conversations/conversation.js';
import { unsealLastMessage, type Unsealed } from '../src/conversations/conversation.sealing.js';
import type { DomainEvent, Recorded } from '../src/event-store/aggregate.js';
import { unsealed } from '../src/event-decoding.js';
import type { ReadTable } from '../src/read-models/table.js';
import type { OwnFields } from '../src/search/searched-texts.js';
import {
  searchConversationRow,
  type SearchConversationRow,
  searchConversationsTable,
  type SearchedConversation,
  searchMessageRow,
  type SearchMessageRow,
  searchMessagesTable,
  searchVisitorRow,
  type SearchVisitorRow,
  searchVisitorsTable,
} from '../src/search/search.tables.js';
import type { VisitorEvent } from '../src/visitors/visitor.js';
import type { FoldingProjection, ProjectedEvent, ProjectionTarget } from './runtime/projection.js';
import { readRows } from './runtime/rows.js';

type Named = Pick<SearchVisitorRow, 'name' | 'email'>;

interface Known<S> {
  readonly state: S;
  /** The revision of the last event that changed the state. */
  readonly revision: number;
}

const NOTHING: SearchedConversation = { visitorId: '', at: 0, fields: { subject: null, tags: [], customAttributes: {} } };
const NO_NAMES: Named = { name: null, email: null };
const REMEMBERED = 10_000;

/** Writes what a search looks in: each message, and the own fields of conversations and visitors. */
export class SearchProjection implements FoldingProjection {
  readonly name = 'search';
  readonly kinds = ['conversation', 'visitor'] as const;
  readonly tables = [searchMessagesTable, searchConversationsTable, searchVisitorsTable];
  private readonly conversations = new LRUCache<string, Known<SearchedConversation>>({ max: REMEMBERED });
  private readonly visitors = new LRUCache<string, Known<Named>>({ max: REMEMBERED });

  async apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void> {
    const messages: SearchMessageRow[] = [];
    const fields: ProjectedEvent[] = [];
    const names: ProjectedEvent[] = [];
    for (const one of events) {
      if (one.skipped === true) continue;
      if (one.kind === 'visitor') {
        if (changesNames(one.event)) names.push(one);
      } else if (changesFields(one.event)) fields.push(one);
      else {
        const message = messageOfEvent(one.event as Recorded<ConversationEvent>);
        if (message === undefined) continue;
        const { organizationId, streamId, event, key } = one;
        messages.push(searchMessageRow(organizationId, streamId, event.revision, unsealLastMessage(key, message)));
      }
    }
    if (messages.length > 0) await target.write(searchMessagesTable, { made: messages, changed: [] });
    await this.#fold<SearchedConversation, SearchConversationRow>(fields, target, {
      table: searchConversationsTable,
      remembered: this.conversations,
      initial: NOTHING,
      key: (organizationId, id) => ({ organization_id: organizationId, conversation_id: id }),
      stateOf: ({ conversation_id, visitor_id, at, fields }) => [conversation_id, { visitorId: visitor_id, at: Number(at), fields }],
      evolve: (state, event) => evolveConversation(state, event as Recorded<ConversationEvent<Unsealed>>),
      rowOf: searchConversationRow,
    });
    await this.#fold<Named, SearchVisitorRow>(names, target, {
      table: searchVisitorsTable,
      remembered: this.visitors,
      initial: NO_NAMES,
      key: (organizationId, id) => ({ organization_id: organizationId, visitor_id: id }),
      stateOf: (row) => [row.visitor_id, { name: row.name, email: row.email }],
      evolve: (state, event) => evolveNames(state, event as Recorded<VisitorEvent<unknown>>),
      rowOf: searchVisitorRow,
    });
  }

  forget(): void {
    this.conversations.clear();
    this.visitors.clear();
  }

  /** Folds the events of streams into a row for each. Events that change nothing of it are not among them, so revisions have gaps. */
  async #fold<S extends object, R extends { organization_id: string; revision: number }>(
    events: readonly ProjectedEvent[],
    target: ProjectionTarget,
    of: {
      readonly table: ReadTable<R>;
      readonly remembered: LRUCache<string, Known<S>>;
      readonly initial: S;
      readonly key: (organizationId: string, id: string) => Partial<R>;
      readonly stateOf: (row: R) => readonly [id: string, state: S];
      readonly evolve: (state: S, event: Recorded<DomainEvent>) => S;
      readonly rowOf: (organizationId: string, id: string, revision: number, state: S) => R;
    },
  ): Promise<void> {
    if (events.length === 0) return;
    const before = new Map<string, Known<S>>();
    const missing = new Map<string, Partial<R>>();
    for (const { organizationId, streamId, event } of events) {
      const key = keyOf(organizationId, streamId);
      const known = of.remembered.get(key);
      if (known !== undefined) before.set(key, known);
      else if (event.revision !== 0) missing.set(key, of.key(organizationId, streamId));
    }
    for (const row of (await readRows(target, of.table, [...missing.values()])) as R[]) {
      const [id, state] = of.stateOf(row);
      before.set(keyOf(row.organization_id, id), { state, revision: row.revision });
    }
    const made = new Map<string, R>();
    const changed = new Map<string, R>();
    const after = new Map(before);
    for (const one of events) {
      const { organizationId, streamId, event } = one;
      const key = keyOf(organizationId, streamId);
      const known = after.get(key) ?? { state: of.initial, revision: -1 };
      // Delivered again: the row already includes the event.
      if (event.revision <= known.revision) continue;
      const state = of.evolve(known.state, unsealed(one));
      after.set(key, { state, revision: event.revision });
      (before.has(key) ? changed : made).set(key, of.rowOf(organizationId, streamId, event.revision, state));
    }
    for (const key of [...made.keys(), ...changed.keys()]) {
      const known = after.get(key);
      if (known !== undefined) of.remembered.set(key, known);
    }
    await target.write(of.table, { made: [...made.values()], changed: [...changed.values()] });
  }
}

const keyOf = (organizationId: string, id: string) => `${organizationId}.${id}`;

const FIELD_EVENTS: ReadonlySet<string> = new Set([
  'ConversationOpened',
  'TagsAdded',
  'TagRemoved',
  'SubjectChanged',
  'CustomAttributesChanged',
] satisfies ConversationEvent['type'][]);
const changesFields = ({ type }: DomainEvent) => FIELD_EVENTS.has(type);

const changesNames = ({ type, data }: DomainEvent) =>
  type === 'VisitorCreated' || (type === 'VisitorChanged' && ('name' in (data as object) || 'email' in (data as object)));

function evolveConversation(before: SearchedConversation, event: Recorded<ConversationEvent<Unsealed>>): SearchedConversation {
  const fields = evolveFields(before.fields, event);
  return event.type === 'ConversationOpened'
    ? { visitorId: event.data.visitorId, at: Date.parse(event.metadata.occurredAt), fields }
    : { ...before, fields };
}

function evolveFields(before: OwnFields, event: Recorded<ConversationEvent<Unsealed>>): OwnFields {
  // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- FIELD_EVENTS names those that change a field
  switch (event.type) {
    case 'ConversationOpened':
      return { ...before, subject: event.data.subject ?? null, customAttributes: event.data.customAttributes ?? {} };
    case 'TagsAdded':
      return { ...before, tags: [...before.tags, ...event.data.tags] };
    case 'TagRemoved': {
      const { tag } = event.data;
      return { ...before, tags: before.tags.filter((one) => one !== tag) };
    }
    case 'SubjectChanged':
      return { ...before, subject: event.data.subject };
    case 'CustomAttributesChanged': {
      const customAttributes: Record<string, unknown> = { ...before.customAttributes, ...event.data.set };
      for (const name of event.data.removed) delete customAttributes[name];
      return { ...before, customAttributes };
    }
    default:
      return before;
  }
}

function evolveNames(before: Named, event: Recorded<VisitorEvent<unknown>>): Named {
  if (event.type !== 'VisitorCreated' && event.type !== 'VisitorChanged') return before;
  const { name, email } = event.data;
  const text = (value: unknown) => (typeof value === 'string' ? value : null);
  return {
    name: name === undefined ? before.name : text(name),
    email: email === undefined ? before.email : text(email),
  };
}
