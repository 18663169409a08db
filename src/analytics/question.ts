import type { ConversationFilter } from '../conversations/conversation.list.js';
import type { Dimension, Metric } from './metrics.js';

/*
 * What is asked of the facts, whatever the route. Every number, its rows, its series and the conversations behind it come from one question,
 * so they agree.
 */

export const INTERVALS = ['hour', 'day', 'week', 'month'] as const;
export type Interval = (typeof INTERVALS)[number];

/** A bound of a range: an instant (ms), or a day that begins at midnight in the question's time zone (YYYY-MM-DD). */
export type Bound = number | string;

/** From when to when: `from` included, `to` excluded. Absent: from the first event, up to now. */
export interface Range {
  readonly from: Bound | undefined;
  readonly to: Bound | undefined;
  /** An IANA name as the database spells it. */
  readonly timezone: string;
}

export interface Question {
  readonly organizationId: string;
  readonly metric: Metric;
  readonly range: Range;
  readonly hours: 'calendar' | 'working';
  readonly by: Dimension | undefined;
  readonly interval: Interval | undefined;
  readonly filter: ConversationFilter;
}

/** The filters that select facts as of their event. All others select conversations as they are now. */
const OF_FACTS = ['inboxId', 'teamId', 'assigneeId', 'priority', 'tag', 'tagMatch'] as const;
export type FactFilter = Pick<ConversationFilter, (typeof OF_FACTS)[number]>;

/** Takes a filter apart: what selects facts, and what selects conversations, which is undefined when nothing does. */
export function filtersOf(filter: ConversationFilter): { facts: FactFilter; conversations: ConversationFilter | undefined } {
  const isOfFacts = (name: string) => (OF_FACTS as readonly string[]).includes(name);
  const entries = Object.entries(filter);
  const conversations = entries.filter(([name]) => !isOfFacts(name));
  return {
    facts: Object.fromEntries(entries.filter(([name]) => isOfFacts(name))),
    conversations: conversations.length === 0 ? undefined : Object.fromEntries(conversations),
  };
}
