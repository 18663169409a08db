import { sql } from 'kysely';
import { LRUCache } from 'lru-cache';
import {
  type Conversation,
  type ConversationEvent,
  evolveConversation,
  initialConversation,
  PRIORITIES,
  type LastMessage,
} from '../src/conversations/conversation.js';
import { type Opened, openedText } from '../src/conversations/conversation.opening.js';
import type { Recorded } from '../src/event-store/aggregate.js';
import type { Position } from '../src/event-store/event-store.js';
import { attributeLabel, type ConversationRow, shownLastMessage, tagLabel } from '../src/queries/conversation-row.js';
import type { ProjectedEvent, Projection, ProjectionTarget } from './runtime/projection.js';
import { readRows } from './runtime/rows.js';

/** What is remembered of a conversation between batches: what its row holds, unfolded. */
interface Known {
  readonly state: Conversation<Opened>;
  readonly revision: number;
}

const KNOWN_BYTES = 64 * 1024 * 1024;

/** Two bytes a character is the most that a text takes; what has no text of its own is about a kilobyte. */
function weightOf({ state }: Known): number {
  const { lastMessage, shown, customAttributes, tags, subject } = state;
  const texts: unknown[] = [lastMessage, subject, tags, customAttributes];
  if (shown.lastMessage !== lastMessage) texts.push(shown.lastMessage);
  return 1_024 + 2 * texts.reduce<number>((length, value) => length + (value === null ? 0 : JSON.stringify(value).length), 0);
}

/**
 * One row per conversation: the fold of its stream with personal fields opened, as columns that lists filter and sort by. A batch is
 * folded in memory and written in one statement, however many events each conversation has in it.
 */
export class ConversationListProjection implements Projection {
  readonly name = 'conversation-list';
  readonly kinds = ['conversation'] as const;
  readonly tables = { conversations: createConversations };
  private readonly known: LRUCache<string, Known>;

  /** @param maxBytes of what is remembered between batches */
  constructor(maxBytes = KNOWN_BYTES) {
    this.known = new LRUCache<string, Known>({ max: 20_000, maxSize: maxBytes, sizeCalculation: weightOf });
  }

  async apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void> {
    const touched = new Map<string, { organizationId: string; id: string; events: ProjectedEvent[] }>();
    for (const one of events) {
      const { organizationId, streamId: id } = one;
      const key = `${organizationId}.${id}`;
      const entry = touched.get(key);
      if (entry === undefined) touched.set(key, { organizationId, id, events: [one] });
      else entry.events.push(one);
    }
    // Of this batch, all of it: while the rows are folded the memory drops others, and must not drop those.
    const before = new Map<string, Known>();
    const missing: { organizationId: string; id: string }[] = [];
    for (const [key, { organizationId, id, events: own }] of touched) {
      const known = this.known.get(key);
      if (known !== undefined) before.set(key, known);
      else if (own[0]?.event.revision !== 0) missing.push({ organizationId, id });
    }
    for (const row of await readRows<ConversationRow>(target, 'conversations', missing, sql`t.*`))
      before.set(`${row.organization_id}.${row.id}`, { state: stateOf(row), revision: row.revision });

    const made: ConversationRow[] = [];
    const changed: ConversationRow[] = [];
    for (const [key, { organizationId, id, events: own }] of touched) {
      let known: Known = before.get(key) ?? { state: initialConversation, revision: -1 };
      const rows = known.revision === -1 ? made : changed;
      let position: Position | undefined;
      for (const { event, skipped } of own) {
        // Delivered again: the row has it already.
        if (event.revision <= known.revision) continue;
        if (event.revision !== known.revision + 1)
          throw new Error(`revision ${event.revision} of ${event.stream} follows ${known.revision}`);
        const state = skipped ? known.state : evolveConversation(known.state, event as Recorded<ConversationEvent<Opened>>);
        known = { state, revision: event.revision };
        position = event.position;
      }
      if (position === undefined) continue;
      this.known.set(key, known);
      rows.push(rowOf(organizationId, id, known, position));
    }
    await target.write('conversations', { made, changed });
  }

  forget(): void {
    this.known.clear();
  }
}

const COLUMNS = [
  'organization_id text collate "C" not null',
  'id text collate "C" not null',
  'revision integer not null',
  'position text collate "C" not null',
  'key_id text not null',
  'visitor_id text collate "C" not null',
  'inbox_id text collate "C" not null',
  'channel text not null',
  'company_id text collate "C"',
  'status text not null',
  // 0 urgent, 1 high, 2 normal, 3 low: the order that lists sort by
  'priority smallint not null',
  'subject text',
  'custom_attributes jsonb not null',
  'assignee_id text collate "C"',
  'assignee_type text',
  'assignee_name text',
  'team_id text collate "C"',
  'team_name text',
  'tags text[] not null',
  // what `tag` and `customAttributes[…]` filter by, in one index (conversation-row.ts)
  'labels text[] not null',
  'previous_conversation_id text',
  'snoozed_until text',
  // ms; null for a snooze that waits for the visitor, so that the timer need not look at it
  'snooze_due_at bigint',
  'snooze_revision integer',
  'episode integer not null',
  'episode_ended boolean not null',
  'rating smallint',
  'rating_comment text',
  'rating_episode integer',
  'waiting_since bigint',
  'message_count integer not null',
  'last_message jsonb',
  'created_at bigint not null',
  'updated_at bigint not null',
  // what the visitor is told, which notes leave as it is
  'shown_revision integer not null',
  'shown_message_count integer not null',
  // null where it is last_message
  'shown_last_message jsonb',
  'shown_updated_at bigint not null',
] as const;

function createConversations(table: string): readonly string[] {
  const index = (name: string, definition: string) => `create index ${table.split('.').at(-1)}_${name} on ${table} ${definition}`;
  return [
    // Room on each page for the next version of a row that is updated with every message.
    `create table ${table} (${COLUMNS.join(', ')}, primary key (organization_id, id)) with (fillfactor = 80)`,
    // With what the other filters look at, so that a total and the choice of a page's rows need not visit the rows. An update touches all
    // indexes in any case, since `updated_at` is in most of them.
    index('updated', '(organization_id, updated_at, id) include (created_at, status, priority, inbox_id, assignee_id, team_id)'),
    index('created', '(organization_id, created_at, id) include (updated_at, status, priority, inbox_id, assignee_id, team_id)'),
    index(
      'status',
      '(organization_id, status, updated_at, id) include (created_at, priority, inbox_id, assignee_id, team_id, waiting_since)',
    ),
    index('assignee', '(organization_id, assignee_id, updated_at, id)'),
    index('inbox', '(organization_id, inbox_id, updated_at, id)'),
    index('team', '(organization_id, team_id, updated_at, id) where team_id is not null'),
    index('visitor', '(organization_id, visitor_id, updated_at, id)'),
    index('priority', '(organization_id, priority, updated_at, id)'),
    index('waiting', '(organization_id, waiting_since, id) where waiting_since is not null'),
    index('labels', 'using gin (labels)'),
    index('snooze', '(snooze_due_at) where snooze_due_at is not null'),
  ];
}

const ms = (instant: string) => Date.parse(instant);
const instant = (at: number) => new Date(at).toISOString();

/** The labels that a tag and an attribute are found by. Sorted: a state that was read back from its row has its attributes in another order. */
function labelsOf(c: Conversation<Opened>): string[] {
  const attributes = Object.entries(c.customAttributes).map(([name, value]) => attributeLabel(name, String(value)));
  return [...c.tags.map(tagLabel), ...attributes.sort()];
}

function rowOf(organizationId: string, id: string, { state: c, revision }: Known, position: string): ConversationRow {
  return {
    organization_id: organizationId,
    id,
    revision,
    position,
    key_id: c.keyId,
    visitor_id: c.visitorId,
    inbox_id: c.inboxId,
    channel: c.channel,
    company_id: c.companyId,
    status: c.status,
    priority: PRIORITIES.indexOf(c.priority),
    subject: openedText(c.subject),
    custom_attributes: c.customAttributes,
    assignee_id: c.assignee?.id ?? null,
    assignee_type: c.assignee?.type ?? null,
    assignee_name: c.assignee?.name ?? null,
    team_id: c.team?.id ?? null,
    team_name: c.team?.name ?? null,
    tags: c.tags,
    labels: labelsOf(c),
    previous_conversation_id: c.previousConversationId,
    snoozed_until: c.snooze?.until ?? null,
    snooze_due_at: c.snooze === null || c.snooze.until === 'next_reply' ? null : ms(c.snooze.until),
    snooze_revision: c.snooze?.revision ?? null,
    episode: c.episode,
    episode_ended: c.episodeEnded,
    rating: c.rating?.rating ?? null,
    rating_comment: c.rating === null ? null : openedText(c.rating.comment),
    rating_episode: c.rating?.episode ?? null,
    waiting_since: c.waitingSince === null ? null : ms(c.waitingSince),
    message_count: c.messageCount,
    last_message: c.lastMessage,
    created_at: ms(c.createdAt),
    updated_at: ms(c.updatedAt),
    shown_revision: c.shown.revision,
    shown_message_count: c.shown.messageCount,
    shown_last_message: c.lastMessage?.type === 'note' ? c.shown.lastMessage : null,
    shown_updated_at: ms(c.shown.updatedAt),
  };
}

/** The state that a row was written from. */
export function stateOf(row: ConversationRow): Conversation<Opened> {
  return {
    exists: true,
    visitorId: row.visitor_id,
    keyId: row.key_id,
    inboxId: row.inbox_id,
    channel: row.channel,
    companyId: row.company_id,
    status: row.status,
    priority: PRIORITIES[row.priority] ?? 'normal',
    subject: row.subject,
    customAttributes: row.custom_attributes,
    assignee:
      row.assignee_id === null || row.assignee_type === null
        ? null
        : { id: row.assignee_id, type: row.assignee_type, name: row.assignee_name ?? '' },
    team: row.team_id === null ? null : { id: row.team_id, name: row.team_name ?? '' },
    tags: row.tags,
    previousConversationId: row.previous_conversation_id,
    snooze: row.snoozed_until === null || row.snooze_revision === null ? null : { until: row.snoozed_until, revision: row.snooze_revision },
    episode: row.episode,
    episodeEnded: row.episode_ended,
    rating:
      row.rating === null || row.rating_episode === null
        ? null
        : { rating: row.rating, comment: row.rating_comment, episode: row.rating_episode },
    waitingSince: row.waiting_since === null ? null : instant(row.waiting_since),
    messageCount: row.message_count,
    lastMessage: row.last_message as LastMessage<Opened> | null,
    createdAt: instant(row.created_at),
    updatedAt: instant(row.updated_at),
    shown: {
      revision: row.shown_revision,
      messageCount: row.shown_message_count,
      lastMessage: shownLastMessage(row),
      updatedAt: instant(row.shown_updated_at),
    },
  };
}
