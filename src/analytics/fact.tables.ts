import type { Channel, Priority, Status } from '../conversations/conversation.js';
import type { WorkingHours } from '../inboxes/inbox.js';
import { INSIGHT_GROUP } from '../read-models/groups.js';
import { readTable } from '../read-models/table.js';
import type { Dimensions, EndedEpisode, Fact, FactKind, Span, Tally } from './tally.js';

/*
 * The tables from which every number is computed. All times and durations are whole milliseconds. No row holds anything personal, so
 * erasing a visitor changes none of them.
 */

/** By what rows are broken down, as of their event. */
interface DimensionColumns {
  inbox_id: string;
  channel: Channel;
  priority: Priority;
  /** The agent who had the conversation. */
  assignee_id: string | null;
  team_id: string | null;
  tags: readonly string[];
}

const DIMENSION_COLUMNS = {
  inbox_id: 'text collate "C" not null',
  channel: 'text collate "C" not null',
  priority: 'text collate "C" not null',
  assignee_id: 'text collate "C"',
  team_id: 'text collate "C"',
  tags: 'text[] not null',
} as const satisfies Record<keyof DimensionColumns, string>;

const dimensionColumns = ({ inboxId, channel, priority, assigneeId, teamId, tags }: Dimensions): DimensionColumns => ({
  inbox_id: inboxId,
  channel,
  priority,
  assignee_id: assigneeId,
  team_id: teamId,
  tags,
});

/** An event that counts. */
export interface FactRow extends DimensionColumns {
  organization_id: string;
  conversation_id: string;
  revision: number;
  kind: FactKind;
  at: number;
  /** The agent, or the API key without an agent, who did it. */
  person_id: string | null;
  // Most events end no duration. A column that a row leaves out is null, and costs nothing on its way.
  first_response_ms?: number;
  first_response_working_ms?: number;
  response_ms?: number;
  response_working_ms?: number;
  resolution_ms?: number;
  resolution_working_ms?: number;
  /** The status that the event ended, and the time in it. */
  ended_status?: Status;
  status_ms?: number;
  status_working_ms?: number;
}

export const factsTable = readTable<FactRow>({
  name: 'facts',
  group: INSIGHT_GROUP,
  version: 1,
  columns: {
    organization_id: 'text collate "C" not null',
    conversation_id: 'text collate "C" not null',
    revision: 'integer not null',
    kind: 'text collate "C" not null',
    at: 'bigint not null',
    ...DIMENSION_COLUMNS,
    person_id: 'text collate "C"',
    first_response_ms: 'bigint',
    first_response_working_ms: 'bigint',
    response_ms: 'bigint',
    response_working_ms: 'bigint',
    resolution_ms: 'bigint',
    resolution_working_ms: 'bigint',
    ended_status: 'text collate "C"',
    status_ms: 'bigint',
    status_working_ms: 'bigint',
  },
  key: ['organization_id', 'conversation_id', 'revision'],
  guard: 'none',
  indexes: {
    kind: '(organization_id, kind, at) include (assignee_id, person_id)',
    first_response: '(organization_id, at) include (first_response_ms, person_id) where first_response_ms is not null',
    response: '(organization_id, at) include (response_ms, person_id) where response_ms is not null',
    resolution: '(organization_id, at) include (resolution_ms, assignee_id, person_id) where resolution_ms is not null',
    in_status: '(organization_id, at) include (ended_status, status_ms, person_id) where status_ms is not null',
  },
});

export function factRow(organizationId: string, conversationId: string, revision: number, fact: Fact): FactRow {
  const { kind, at, personId, firstResponse, response, resolution, inStatus } = fact;
  return {
    organization_id: organizationId,
    conversation_id: conversationId,
    revision,
    kind,
    at,
    person_id: personId,
    ...dimensionColumns(fact),
    ...(firstResponse !== undefined && { first_response_ms: firstResponse.ms, first_response_working_ms: firstResponse.workingMs }),
    ...(response !== undefined && { response_ms: response.ms, response_working_ms: response.workingMs }),
    ...(resolution !== undefined && { resolution_ms: resolution.ms, resolution_working_ms: resolution.workingMs }),
    ...(inStatus !== undefined && { ended_status: inStatus.status, status_ms: inStatus.ms, status_working_ms: inStatus.workingMs }),
  };
}

/** An episode that has ended. */
export interface EpisodeRow extends DimensionColumns {
  organization_id: string;
  conversation_id: string;
  episode: number;
  position: string;
  /** The revision of the event that ended it. */
  revision: number;
  started_at: number;
  ended_at: number;
  ended_by: 'resolved' | 'closed';
  /** The person who ended it. */
  person_id: string | null;
  /** The latest rating, and when the first was given. */
  rating: number | null;
  rated_at: number | null;
  rated_revision: number | null;
  reopened_at: number | null;
}

export const episodesTable = readTable<EpisodeRow>({
  name: 'episodes',
  group: INSIGHT_GROUP,
  version: 1,
  columns: {
    organization_id: 'text collate "C" not null',
    conversation_id: 'text collate "C" not null',
    episode: 'integer not null',
    position: 'text collate "C" not null',
    revision: 'integer not null',
    started_at: 'bigint not null',
    ended_at: 'bigint not null',
    ended_by: 'text collate "C" not null',
    ...DIMENSION_COLUMNS,
    person_id: 'text collate "C"',
    rating: 'smallint',
    rated_at: 'bigint',
    rated_revision: 'integer',
    reopened_at: 'bigint',
  },
  key: ['organization_id', 'conversation_id', 'episode'],
  guard: 'position',
  indexes: {
    ended: '(organization_id, ended_by, ended_at) include (reopened_at, assignee_id, person_id)',
    rated: '(organization_id, rated_at) include (rating, assignee_id) where rated_at is not null',
  },
  storage: 'fillfactor = 90',
});

export function episodeRow(organizationId: string, conversationId: string, position: string, episode: EndedEpisode): EpisodeRow {
  return {
    organization_id: organizationId,
    conversation_id: conversationId,
    episode: episode.episode,
    position,
    revision: episode.revision,
    started_at: episode.startedAt,
    ended_at: episode.endedAt,
    ended_by: episode.endedBy,
    ...dimensionColumns(episode),
    person_id: episode.personId,
    rating: episode.rating,
    rated_at: episode.ratedAt,
    rated_revision: episode.ratedRevision,
    reopened_at: episode.reopenedAt,
  };
}

/** A time in which a conversation was open, pending or snoozed and nothing changed by which the backlog is broken down. */
export interface SpanRow extends DimensionColumns {
  organization_id: string;
  conversation_id: string;
  /** The revision of the event that began it. */
  revision: number;
  position: string;
  status: Span['status'];
  from_at: number;
  /** Null while it lasts. */
  to_at: number | null;
}

export const spansTable = readTable<SpanRow>({
  name: 'spans',
  group: INSIGHT_GROUP,
  version: 1,
  columns: {
    organization_id: 'text collate "C" not null',
    conversation_id: 'text collate "C" not null',
    revision: 'integer not null',
    position: 'text collate "C" not null',
    status: 'text collate "C" not null',
    from_at: 'bigint not null',
    to_at: 'bigint',
    ...DIMENSION_COLUMNS,
  },
  key: ['organization_id', 'conversation_id', 'revision'],
  guard: 'position',
  indexes: {
    lasting: '(organization_id, status) where to_at is null',
    began: '(organization_id, from_at) include (assignee_id)',
    ended: '(organization_id, to_at) include (assignee_id) where to_at is not null',
  },
  storage: 'fillfactor = 90',
});

export function spanRow(organizationId: string, conversationId: string, position: string, span: Span): SpanRow {
  return {
    organization_id: organizationId,
    conversation_id: conversationId,
    revision: span.revision,
    position,
    status: span.status,
    from_at: span.from,
    to_at: span.to,
    ...dimensionColumns(span),
  };
}

/** What the next event of a conversation is counted with. */
export interface TallyRow {
  organization_id: string;
  conversation_id: string;
  revision: number;
  state: Tally;
}

export const talliesTable = readTable<TallyRow>({
  name: 'tallies',
  group: INSIGHT_GROUP,
  version: 1,
  columns: {
    organization_id: 'text collate "C" not null',
    conversation_id: 'text collate "C" not null',
    revision: 'integer not null',
    state: 'json not null',
  },
  key: ['organization_id', 'conversation_id'],
  guard: 'revision',
  indexes: {},
  storage: 'fillfactor = 80',
});

/** The working hours of an inbox from an event on; null means always open. */
export interface InboxHoursRow {
  organization_id: string;
  inbox_id: string;
  revision: number;
  position: string;
  hours: WorkingHours | null;
}

export const inboxHoursTable = readTable<InboxHoursRow>({
  name: 'inbox_hours',
  group: INSIGHT_GROUP,
  version: 1,
  columns: {
    organization_id: 'text collate "C" not null',
    inbox_id: 'text collate "C" not null',
    revision: 'integer not null',
    position: 'text collate "C" not null',
    hours: 'json',
  },
  key: ['organization_id', 'inbox_id', 'revision'],
  guard: 'none',
  indexes: {},
});
