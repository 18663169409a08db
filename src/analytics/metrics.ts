/*
 * Every metric, told once: the API, its document, docs/metrics.md, the SQL views of the schema `analytics` and the tests read this table.
 */

/** Raised when a metric changes its meaning. Answers name it. */
export const DEFINITIONS_VERSION = 1;

export const DIMENSIONS = ['inbox', 'agent', 'team', 'tag', 'channel', 'priority', 'status'] as const;
export type Dimension = (typeof DIMENSIONS)[number];

const USUAL: readonly Dimension[] = ['inbox', 'agent', 'team', 'tag', 'channel', 'priority'];

/** What a metric's values are: the number of facts, a duration of each, a rating of each, or a yes or no of each. */
export type Unit = 'conversations' | 'episodes' | 'messages' | 'seconds' | 'rating' | 'share';

/** Where the rows behind a metric are. All SQL is of one table, whose alias is `f`. */
export interface Behind {
  readonly table: 'facts' | 'episodes' | 'spans';
  /** Which of its rows. */
  readonly where: string;
  /** When a row counts (ms). */
  readonly at: string;
  /** The revision of the event that counts. */
  readonly revision: string;
  /** To which agent, or API key, a row belongs. */
  readonly agent: string;
  /** The status by which a row is told apart, where that is a dimension. */
  readonly status?: string;
  /** The value of a row: ms of a duration, a rating from 1 to 5, 1 or 0. Absent where rows are only counted. */
  readonly value?: string;
  /** A duration in working time (ms). */
  readonly working?: string;
}

export interface Metric {
  readonly name: string;
  readonly unit: Unit;
  /** What is counted or measured, in sentences. */
  readonly definition: string;
  /** Whose number it is, when it is broken down by agent. */
  readonly belongsTo: string;
  readonly dimensions: readonly Dimension[];
  readonly behind: Behind;
}

const ASSIGNEE_ELSE_PERSON = 'coalesce(f.assignee_id, f.person_id)';
const fact = (where: string, agent: string, more: Partial<Behind> = {}): Behind => ({
  table: 'facts',
  where,
  at: 'f.at',
  revision: 'f.revision',
  agent,
  ...more,
});
const duration = (name: string, agent: string, more: Partial<Behind> = {}): Behind =>
  fact(`f.${name}_ms is not null`, agent, { value: `f.${name}_ms`, working: `f.${name}_working_ms`, ...more });

const ASSIGNEE = 'the agent who had the conversation';
const ENDED_BY = 'the agent who had the conversation, else the person who ended the episode';

export const METRICS = [
  {
    name: 'conversations_opened',
    unit: 'conversations',
    definition: 'Conversations that were opened.',
    belongsTo: ASSIGNEE,
    dimensions: USUAL,
    behind: fact(`f.kind = 'opened'`, 'f.assignee_id'),
  },
  {
    name: 'conversations_resolved',
    unit: 'episodes',
    definition: 'Episodes that ended by resolving. A conversation that is resolved again after it was reopened counts again.',
    belongsTo: ENDED_BY,
    dimensions: USUAL,
    behind: fact(`f.kind = 'resolved'`, ASSIGNEE_ELSE_PERSON),
  },
  {
    name: 'conversations_closed',
    unit: 'conversations',
    definition: 'Conversations that were closed, resolved before or not.',
    belongsTo: ENDED_BY,
    dimensions: USUAL,
    behind: fact(`f.kind = 'closed'`, ASSIGNEE_ELSE_PERSON),
  },
  {
    name: 'conversations_reopened',
    unit: 'episodes',
    definition: 'Resolved conversations that were opened again, by a message of the visitor or by the team: each is a new episode.',
    belongsTo: ASSIGNEE,
    dimensions: USUAL,
    behind: fact(`f.kind = 'reopened'`, 'f.assignee_id'),
  },
  {
    name: 'backlog',
    unit: 'conversations',
    definition:
      'Conversations that are open, pending or snoozed at the end of the interval, or at the end of the range without an interval.',
    belongsTo: ASSIGNEE,
    dimensions: [...USUAL, 'status'],
    behind: {
      table: 'spans',
      where: 'true',
      at: 'f.from_at',
      revision: 'f.revision',
      agent: 'f.assignee_id',
      status: 'f.status',
    },
  },
  {
    name: 'messages_received',
    unit: 'messages',
    definition: 'Messages of visitors.',
    belongsTo: ASSIGNEE,
    dimensions: USUAL,
    behind: fact(`f.kind = 'received'`, 'f.assignee_id'),
  },
  {
    name: 'messages_sent',
    unit: 'messages',
    definition: 'Public messages of people. Notes and messages of rules and auto-responders are none of these.',
    belongsTo: 'the author of the message',
    dimensions: USUAL,
    behind: fact(`f.kind = 'sent'`, 'f.person_id'),
  },
  {
    name: 'messages_automated',
    unit: 'messages',
    definition: 'Messages of rules and auto-responders.',
    belongsTo: ASSIGNEE,
    dimensions: USUAL,
    behind: fact(`f.kind = 'automated'`, 'f.assignee_id'),
  },
  {
    name: 'first_response_time',
    unit: 'seconds',
    definition:
      'From the start of a conversation to the first public message of a person. It counts when that message is sent. A conversation in which a person wrote before the visitor did has none.',
    belongsTo: 'the author of the message',
    dimensions: USUAL,
    behind: duration('first_response', 'f.person_id'),
  },
  {
    name: 'response_time',
    unit: 'seconds',
    definition:
      "From the visitor's first unanswered message to the next public message of a person. It counts when that message is sent. Resolving and closing end the wait without an answer.",
    belongsTo: 'the author of the message',
    dimensions: USUAL,
    behind: duration('response', 'f.person_id'),
  },
  {
    name: 'resolution_time',
    unit: 'seconds',
    definition: 'From the start of an episode, which is opening or reopening, to its end by resolving or closing. It counts at the end.',
    belongsTo: ENDED_BY,
    dimensions: USUAL,
    behind: duration('resolution', ASSIGNEE_ELSE_PERSON),
  },
  {
    name: 'time_in_status',
    unit: 'seconds',
    definition: 'How long conversations were in a status. It counts when the status ends, and rows tell the statuses apart.',
    belongsTo: 'the person who ended the status',
    dimensions: [...USUAL, 'status'],
    behind: duration('status', 'f.person_id', { status: 'f.ended_status' }),
  },
  {
    name: 'rating',
    unit: 'rating',
    definition:
      'Ratings of episodes, from 1 to 5. A rating counts when it is first given, with its latest value, and is broken down as of the end of its episode.',
    belongsTo: 'the agent who had the conversation at the end of the episode',
    dimensions: USUAL,
    behind: {
      table: 'episodes',
      where: 'f.rated_at is not null',
      at: 'f.rated_at',
      revision: 'f.rated_revision',
      agent: 'f.assignee_id',
      value: 'f.rating',
    },
  },
  {
    name: 'reopen_rate',
    unit: 'share',
    definition:
      'Which share of the episodes that ended by resolving was reopened, from 0 to 1. An episode counts when it ended, so a later reopening raises the share of that time.',
    belongsTo: ENDED_BY,
    dimensions: USUAL,
    behind: {
      table: 'episodes',
      where: `f.ended_by = 'resolved'`,
      at: 'f.ended_at',
      revision: 'f.revision',
      agent: ASSIGNEE_ELSE_PERSON,
      value: '(f.reopened_at is not null)::integer',
    },
  },
] as const satisfies readonly Metric[];

export type MetricName = (typeof METRICS)[number]['name'];
export const METRIC_NAMES = METRICS.map(({ name }) => name);

const BY_NAME: ReadonlyMap<string, Metric> = new Map(METRICS.map((metric) => [metric.name, metric]));

/** Undefined when no metric has this name. */
export const metricNamed = (name: string): Metric | undefined => BY_NAME.get(name);
