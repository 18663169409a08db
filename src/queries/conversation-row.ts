import { createHash } from 'node:crypto';
import type { Channel, LastMessage, Status } from '../conversations/conversation.js';
import type { Opened } from '../conversations/conversation.opening.js';
import { typedText } from '../platform/unseen-characters.js';

/** A row of read_v<N>.conversations: the fold of one conversation. Times are ms since 1970. */
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
  custom_attributes: Readonly<Record<string, Opened>>;
  assignee_id: string | null;
  assignee_type: 'agent' | 'team' | null;
  assignee_name: string | null;
  team_id: string | null;
  team_name: string | null;
  tags: readonly string[];
  labels: readonly string[];
  previous_conversation_id: string | null;
  snoozed_until: string | null;
  snooze_due_at: number | null;
  snooze_revision: number | null;
  episode: number;
  episode_ended: boolean;
  rating: number | null;
  rating_comment: string | null;
  rating_episode: number | null;
  waiting_since: number | null;
  message_count: number;
  last_message: LastMessage<Opened> | null;
  created_at: number;
  updated_at: number;
  shown_revision: number;
  shown_message_count: number;
  /** Null where it is last_message, which it nearly always is. */
  shown_last_message: LastMessage<Opened> | null;
  shown_updated_at: number;
}

/** The last message that the visitor sees. */
export function shownLastMessage(
  row: Pick<ConversationRow, 'shown_message_count' | 'shown_last_message' | 'last_message'>,
): LastMessage<Opened> | null {
  return row.shown_message_count === 0 ? null : (row.shown_last_message ?? row.last_message);
}

/** Bytes of a label that is kept as it is; PostgreSQL refuses index entries of more than 2,700. */
const MAX_LABEL_BYTES = 500;

const label = (text: string) =>
  Buffer.byteLength(text) <= MAX_LABEL_BYTES ? text : `sha256:${createHash('sha256').update(text).digest('base64url')}`;

/** The label that conversations with this tag are found by, in whatever form the tag was stored or is asked for. */
export const tagLabel = (tag: string) => label(`tag:${typedText(tag)}`);

/** The label that conversations with this attribute are found by. The name's length tells where it ends, whatever the two hold. */
export const attributeLabel = (name: string, value: string) => label(`attribute:${name.length}:${name}=${value}`);
