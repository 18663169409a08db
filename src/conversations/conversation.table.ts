import { createHash } from 'node:crypto';
import { typedText } from '../texts/unseen-characters.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { readTable } from '../read-models/table.js';
import { type Channel, type Conversation, type LastMessage, PRIORITIES, type Status } from './conversation.js';
import { type Unsealed, unsealedText } from './conversation.sealing.js';

/** The fold of one conversation, its personal fields in plain text. Times are ms since 1970. */
export interface ConversationRow {
  organization_id: string;
  id: string;
  revision: number;
  position: string;
  key_id: string;
  visitor_id: string;
  inbox_id: string;
  channel: Channel;
  /** The visitor's company when the conversation was opened. */
  company_id: string | null;
  status: Status;
  /** Index into PRIORITIES. */
  priority: number;
  subject: string | null;
  custom_attributes: Readonly<Record<string, Unsealed>>;
  assignee_id: string | null;
  assignee_type: 'agent' | 'team' | null;
  assignee_name: string | null;
  team_id: string | null;
  team_name: string | null;
  taken_from: string | null;
  tags: readonly string[];
  labels: readonly string[];
  previous_conversation_id: string | null;
  snoozed_until: string | null;
  snooze_revision: number | null;
  episode: number;
  episode_ended: boolean;
  rating: number | null;
  rating_comment: string | null;
  rating_episode: number | null;
  waiting_since: number | null;
  message_count: number;
  last_message: LastMessage<Unsealed> | null;
  created_at: number;
  updated_at: number;
  shown_revision: number;
  shown_message_count: number;
  /** Null when it equals last_message, which is nearly always so. */
  shown_last_message: LastMessage<Unsealed> | null;
  shown_updated_at: number;
}

export const conversationsTable = readTable<ConversationRow>({
  name: 'conversations',
  group: CORE_GROUP,
  version: 1,
  columns: {
    organization_id: 'text collate "C" not null',
    id: 'text collate "C" not null',
    revision: 'integer not null',
    position: 'text collate "C" not null',
    key_id: 'text not null',
    visitor_id: 'text collate "C" not null',
    inbox_id: 'text collate "C" not null',
    channel: 'text not null',
    company_id: 'text collate "C"',
    status: 'text not null',
    // 0 urgent, 1 high, 2 normal, 3 low: the order that lists sort by
    priority: 'smallint not null',
    subject: 'text',
    custom_attributes: 'jsonb not null',
    assignee_id: 'text collate "C"',
    assignee_type: 'text',
    assignee_name: 'text',
    team_id: 'text collate "C"',
    team_name: 'text',
    // the agent to whom automatic assignment does not give it back
    taken_from: 'text collate "C"',
    tags: 'text[] not null',
    // the values that `tag` and `customAttributes[…]` filter by, in one index (tagLabel, attributeLabel)
    labels: 'text[] not null',
    previous_conversation_id: 'text',
    snoozed_until: 'text',
    snooze_revision: 'integer',
    episode: 'integer not null',
    episode_ended: 'boolean not null',
    rating: 'smallint',
    rating_comment: 'text',
    rating_episode: 'integer',
    waiting_since: 'bigint',
    message_count: 'integer not null',
    last_message: 'jsonb',
    created_at: 'bigint not null',
    updated_at: 'bigint not null',
    // what the visitor is shown; notes do not change it
    shown_revision: 'integer not null',
    shown_message_count: 'integer not null',
    // null when it equals last_message
    shown_last_message: 'jsonb',
    shown_updated_at: 'bigint not null',
  },
  key: ['organization_id', 'id'],
  guard: 'revision',
  indexes: {
    // Includes the columns of the other filters, so totals and the choice of a page's rows need not visit the table. This costs no extra
    // index update, since most indexes hold `updated_at` and every update touches all indexes anyway.
    updated: '(organization_id, updated_at, id) include (created_at, status, priority, inbox_id, assignee_id, team_id)',
    created: '(organization_id, created_at, id) include (updated_at, status, priority, inbox_id, assignee_id, team_id)',
    status: '(organization_id, status, updated_at, id) include (created_at, priority, inbox_id, assignee_id, team_id, waiting_since)',
    assignee: '(organization_id, assignee_id, updated_at, id)',
    inbox: '(organization_id, inbox_id, updated_at, id)',
    team: '(organization_id, team_id, updated_at, id) where team_id is not null',
    visitor: '(organization_id, visitor_id, updated_at, id)',
    priority: '(organization_id, priority, updated_at, id)',
    waiting: '(organization_id, waiting_since, id) where waiting_since is not null',
    // Those that wait for an agent, longest first.
    queue: "(organization_id, inbox_id, coalesce(waiting_since, created_at), id) where status = 'open' and assignee_id is null",
    labels: 'using gin (labels)',
  },
  // Leaves room on each page for the next version of a row, which every message updates.
  storage: 'fillfactor = 80',
});

/** The last message that the visitor sees. */
export function shownLastMessage(
  row: Pick<ConversationRow, 'shown_message_count' | 'shown_last_message' | 'last_message'>,
): LastMessage<Unsealed> | null {
  return row.shown_message_count === 0 ? null : (row.shown_last_message ?? row.last_message);
}

/** Longest label that is stored as it is, in bytes; PostgreSQL refuses index entries of more than 2,700. */
const MAX_LABEL_BYTES = 500;

const label = (text: string) =>
  Buffer.byteLength(text) <= MAX_LABEL_BYTES ? text : `sha256:${createHash('sha256').update(text).digest('base64url')}`;

/** The label by which a tag's conversations are found, whatever spelling was stored or asked for. */
export const tagLabel = (tag: string) => label(`tag:${typedText(tag)}`);

/** The label by which an attribute's conversations are found. The name's length separates name and value, whatever characters they hold. */
export const attributeLabel = (name: string, value: string) => label(`attribute:${name.length}:${name}=${value}`);

const ms = (instant: string) => Date.parse(instant);
const instant = (at: number) => new Date(at).toISOString();

/** The labels of tags and attributes. Sorted, since a state that was read back from its row has its attributes in another order. */
function labelsOf(c: Conversation<Unsealed>): string[] {
  const attributes = Object.entries(c.customAttributes).map(([name, value]) => attributeLabel(name, String(value)));
  return [...c.tags.map(tagLabel), ...attributes.sort()];
}

/** The row of a conversation. @param at position of its last event */
export function rowOfConversation(
  organizationId: string,
  id: string,
  c: Conversation<Unsealed>,
  { revision, position }: { readonly revision: number; readonly position: string },
): ConversationRow {
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
    subject: unsealedText(c.subject),
    custom_attributes: c.customAttributes,
    assignee_id: c.assignee?.id ?? null,
    assignee_type: c.assignee?.type ?? null,
    assignee_name: c.assignee?.name ?? null,
    team_id: c.team?.id ?? null,
    team_name: c.team?.name ?? null,
    taken_from: c.takenFrom,
    tags: c.tags,
    labels: labelsOf(c),
    previous_conversation_id: c.previousConversationId,
    snoozed_until: c.snooze?.until ?? null,
    snooze_revision: c.snooze?.revision ?? null,
    episode: c.episode,
    episode_ended: c.episodeEnded,
    rating: c.rating?.rating ?? null,
    rating_comment: c.rating === null ? null : unsealedText(c.rating.comment),
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

/** The state from which a row was written. */
export function stateOfRow(row: ConversationRow): Conversation<Unsealed> {
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
    takenFrom: row.taken_from,
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
    lastMessage: row.last_message,
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
