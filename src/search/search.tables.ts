import type { LastMessage } from '../conversations/conversation.js';
import type { Unsealed } from '../conversations/conversation.sealing.js';
import { INSIGHT_GROUP } from '../read-models/groups.js';
import { readTable } from '../read-models/table.js';
import { ERASED } from '../security/sealing.js';
import { foldedLine } from './fold.js';
import { type OwnFields, textsOfConversation, textsOfMessage, textsOfVisitor } from './searched-texts.js';
import { gramsOf, markOf, vectorOf } from './search.terms.js';

/*
 * What a search looks in. All texts are in plain form, as in the list; what is erased is in none of them.
 */

/** A message that can be found. */
export interface SearchMessageRow {
  organization_id: string;
  conversation_id: string;
  revision: number;
  at: number;
  message: LastMessage<Unsealed>;
  /** A tsvector, as text. */
  terms: string;
}

export const searchMessagesTable = readTable<SearchMessageRow>({
  name: 'search_messages',
  group: INSIGHT_GROUP,
  version: 2,
  columns: {
    organization_id: 'text collate "C" not null',
    conversation_id: 'text collate "C" not null',
    revision: 'integer not null',
    at: 'bigint not null',
    message: 'json not null',
    terms: 'tsvector not null',
  },
  key: ['organization_id', 'conversation_id', 'revision'],
  guard: 'none',
  indexes: {
    terms: 'using gin (terms)',
    newest: '(organization_id, at, conversation_id, revision)',
  },
});

export function searchMessageRow(
  organizationId: string,
  conversationId: string,
  revision: number,
  message: LastMessage<Unsealed>,
): SearchMessageRow {
  return {
    organization_id: organizationId,
    conversation_id: conversationId,
    revision,
    at: Date.parse(message.createdAt),
    message,
    terms: vectorOf(markOf(organizationId), textsOfMessage(message)),
  };
}

/** What a conversation itself can be found by. */
export interface SearchConversationRow {
  organization_id: string;
  conversation_id: string;
  /** The revision of the last event that changed one of the fields. */
  revision: number;
  visitor_id: string;
  /** When the conversation was opened, which never changes: pages of a search stay in their order (ms). */
  at: number;
  fields: OwnFields;
  terms: string;
}

export const searchConversationsTable = readTable<SearchConversationRow>({
  name: 'search_conversations',
  group: INSIGHT_GROUP,
  version: 2,
  columns: {
    organization_id: 'text collate "C" not null',
    conversation_id: 'text collate "C" not null',
    revision: 'integer not null',
    visitor_id: 'text collate "C" not null',
    at: 'bigint not null',
    fields: 'json not null',
    terms: 'tsvector not null',
  },
  key: ['organization_id', 'conversation_id'],
  guard: 'revision',
  indexes: {
    terms: 'using gin (terms)',
    visitor: '(organization_id, visitor_id)',
    newest: '(organization_id, at, conversation_id)',
  },
});

/** What is remembered of a conversation. */
export interface SearchedConversation {
  readonly visitorId: string;
  readonly at: number;
  readonly fields: OwnFields;
}

export function searchConversationRow(
  organizationId: string,
  conversationId: string,
  revision: number,
  { visitorId, at, fields }: SearchedConversation,
): SearchConversationRow {
  return {
    organization_id: organizationId,
    conversation_id: conversationId,
    revision,
    visitor_id: visitorId,
    at,
    fields,
    terms: vectorOf(markOf(organizationId), textsOfConversation(fields)),
  };
}

/** The name and the address by which a visitor's conversations are found. */
export interface SearchVisitorRow {
  organization_id: string;
  visitor_id: string;
  revision: number;
  name: string | null;
  email: string | null;
  /** Folded, to be compared as a whole. */
  name_line: string | null;
  email_line: string | null;
  /** Every three characters that follow each other in either. */
  grams: readonly string[];
  terms: string;
}

export const searchVisitorsTable = readTable<SearchVisitorRow>({
  name: 'search_visitors',
  group: INSIGHT_GROUP,
  version: 2,
  columns: {
    organization_id: 'text collate "C" not null',
    visitor_id: 'text collate "C" not null',
    revision: 'integer not null',
    name: 'text',
    email: 'text',
    name_line: 'text collate "C"',
    email_line: 'text collate "C"',
    grams: 'text[] not null',
    terms: 'tsvector not null',
  },
  key: ['organization_id', 'visitor_id'],
  guard: 'revision',
  indexes: {
    terms: 'using gin (terms)',
    grams: 'using gin (grams)',
    name: '(organization_id, name_line)',
    email: '(organization_id, email_line)',
  },
});

/** PostgreSQL refuses index entries of more than 2,700 bytes. */
const MAX_LINE = 500;

function lineOf(text: string | null): string | null {
  return text === null ? null : Array.from(foldedLine(text)).slice(0, MAX_LINE).join('');
}

export function searchVisitorRow(
  organizationId: string,
  visitorId: string,
  revision: number,
  given: { readonly name: unknown; readonly email: unknown },
): SearchVisitorRow {
  const known = (value: unknown) => (typeof value === 'string' && value !== ERASED ? value : null);
  const name = known(given.name);
  const email = known(given.email);
  const mark = markOf(organizationId);
  const lines = { name_line: lineOf(name), email_line: lineOf(email) };
  return {
    organization_id: organizationId,
    visitor_id: visitorId,
    revision,
    name,
    email,
    ...lines,
    grams: gramsOf(mark, lines.name_line, lines.email_line),
    terms: vectorOf(mark, textsOfVisitor({ name, email })),
  };
}
