import type { ConversationEvent, Status } from '../../src/conversations/conversation.js';
import { decode, type Recorded } from '../../src/event-store/aggregate.js';
import { conversationAggregate } from '../../src/conversations/conversation.js';
import { parseStreamName, type StoredEvent } from '../../src/event-store/event-store.js';
import { inboxAggregate, type WorkingHours } from '../../src/inboxes/inbox.js';
import { workingTime } from '../../src/inboxes/working-time.js';

/*
 * Every metric a second time, in the plainest way: each event looks back over the whole history of its conversation. No state is carried,
 * and nothing is shared with the projection but the length of working time, which has a test of its own.
 */

type Event = Recorded<ConversationEvent>;

/** One thing that counts for a metric. */
export interface Counted {
  readonly metric: string;
  readonly conversationId: string;
  readonly revision: number;
  readonly at: number;
  readonly inbox: string;
  readonly channel: string;
  readonly priority: string;
  readonly agent: string | null;
  readonly team: string | null;
  readonly tags: readonly string[];
  readonly status?: Status;
  /** ms, a rating, or 1 and 0. */
  readonly value?: number;
  readonly working?: number;
}

export class Oracle {
  readonly #histories = new Map<string, Event[]>();
  readonly #hours = new Map<string, { readonly position: string; readonly hours: WorkingHours | null }[]>();
  readonly counted: readonly Counted[];

  constructor(events: readonly StoredEvent[]) {
    for (const stored of events) {
      const { kind, id = '' } = parseStreamName(stored.stream) ?? {};
      if (kind === 'conversation') {
        const event = decode(conversationAggregate.codec, stored);
        const history = this.#histories.get(id);
        if (history === undefined) this.#histories.set(id, [event]);
        else history.push(event);
      } else if (kind === 'inbox') {
        const event = decode(inboxAggregate.codec, stored);
        const hours = (event.data as { workingHours?: WorkingHours | null }).workingHours;
        if (hours !== undefined) this.#hours.set(id, [...(this.#hours.get(id) ?? []), { position: event.position, hours }]);
      }
    }
    this.counted = [...this.#histories].flatMap(([id, history]) =>
      history.flatMap((_, i) => this.#countsOf(id, history.slice(0, i + 1), history)),
    );
  }

  /** The conversations that are open, pending or snoozed just before an instant, as they then are. */
  backlog(before: number): Counted[] {
    return [...this.#histories].flatMap(([conversationId, history]) => {
      const past = history.filter(({ metadata }) => Date.parse(metadata.occurredAt) < before);
      const status = statusAfter(past);
      if (past.length === 0 || status === 'resolved' || status === 'closed') return [];
      return [{ metric: 'backlog', conversationId, revision: -1, at: before, ...asOf(past), agent: assigneeAfter(past), status }];
    });
  }

  /** @param past the history up to and with the event; @param whole also what came later */
  #countsOf(conversationId: string, past: readonly Event[], whole: readonly Event[]): Counted[] {
    const event = past.at(-1) as Event;
    const before = past.slice(0, -1);
    const at = time(event);
    const { actor } = event.metadata;
    const acting = actor.type === 'agent' || actor.type === 'apiKey' ? actor.id : null;
    const assignee = assigneeAfter(past);
    const count = (metric: string, agent: string | null, more: Partial<Counted> = {}): Counted => ({
      metric,
      conversationId,
      revision: event.revision,
      at,
      ...asOf(past),
      agent,
      ...more,
    });
    const lasted = (from: number) => ({
      value: at - from,
      working: workingTime(this.#hoursAt(asOf(past).inbox, event.position), from, at),
    });
    // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- the others count for nothing by themselves
    switch (event.type) {
      case 'ConversationOpened':
        return [count('conversations_opened', assignee)];
      case 'MessageReceived':
        return [count('messages_received', assignee)];
      case 'MessageSent': {
        const { author } = event.data;
        if (author.type === 'automation') return [count('messages_automated', assignee)];
        const found = [count('messages_sent', author.id)];
        const firstMessage = before.find(({ type }) => type === 'MessageReceived' || isByPerson(type, before));
        const peopleBefore = before.some(isPersons);
        if (!peopleBefore && firstMessage?.type === 'MessageReceived')
          found.push(count('first_response_time', author.id, lasted(time(past[0] as Event))));
        // Since when the visitor waits: the first message since a person's message or the end of an episode.
        const answered = before.findLastIndex((one) => isPersons(one) || isEnd(one));
        const waiting = before.slice(answered + 1).find(({ type }) => type === 'MessageReceived');
        if (waiting !== undefined) found.push(count('response_time', author.id, lasted(time(waiting))));
        return found;
      }
      case 'ConversationStatusChanged':
      case 'ConversationSnoozed': {
        const from = statusAfter(before);
        const to = statusAfter(past);
        if (from === to) return [];
        const found: Counted[] = [];
        const since = before.findLast((_, i) => statusAfter(before.slice(0, i)) !== statusAfter(before.slice(0, i + 1)) || i === 0);
        found.push(count('time_in_status', acting, { status: from, ...lasted(time(since as Event)) }));
        const owner = assignee ?? acting;
        if (to === 'resolved') found.push(count('conversations_resolved', owner));
        if (to === 'closed') found.push(count('conversations_closed', owner));
        if (from === 'resolved' && to === 'open') found.push(count('conversations_reopened', assignee));
        if ((to === 'resolved' || to === 'closed') && from !== 'resolved') {
          const begin = before.findLast(
            (one, i) =>
              i === 0 ||
              (one.type === 'ConversationStatusChanged' && statusAfter(before.slice(0, i)) === 'resolved' && one.data.to === 'open'),
          );
          found.push(count('resolution_time', owner, lasted(time(begin as Event))));
          const later = whole.slice(past.length);
          const next = later.findIndex((one, i) => isEnd(one) && statusAfter([...past, ...later.slice(0, i)]) !== 'resolved');
          const reopened = later.some((one) => one.type === 'ConversationStatusChanged' && one.data.to === 'open');
          if (to === 'resolved') found.push(count('reopen_rate', owner, { value: reopened ? 1 : 0 }));
          // Ratings go to the latest episode that has ended.
          const ratings = (next === -1 ? later : later.slice(0, next)).filter(({ type }) => type === 'ConversationRated');
          const [first] = ratings;
          const last = ratings.at(-1);
          if (first !== undefined && last?.type === 'ConversationRated')
            found.push(count('rating', assignee, { at: time(first), revision: first.revision, value: last.data.rating }));
        }
        return found;
      }
      default:
        return [];
    }
  }

  #hoursAt(inboxId: string, position: string): WorkingHours | null {
    return (this.#hours.get(inboxId) ?? []).findLast((one) => one.position < position)?.hours ?? null;
  }
}

const time = (event: Event) => Date.parse(event.metadata.occurredAt);
const isPersons = (event: Event) => event.type === 'MessageSent' && event.data.author.type !== 'automation';
const isByPerson = (type: string, events: readonly Event[]) =>
  type === 'MessageSent' && events.some((one) => one.type === type && isPersons(one));
const isEnd = (event: Event) => event.type === 'ConversationStatusChanged' && (event.data.to === 'resolved' || event.data.to === 'closed');

function statusAfter(events: readonly Event[]): Status {
  const last = events.findLast(({ type }) => type === 'ConversationStatusChanged' || type === 'ConversationSnoozed');
  if (last?.type === 'ConversationSnoozed') return 'snoozed';
  return last?.type === 'ConversationStatusChanged' ? last.data.to : 'open';
}

function assigneeAfter(events: readonly Event[]): string | null {
  const last = events.findLast(({ type }) => type === 'ConversationAssigned' || type === 'ConversationUnassigned');
  return last?.type === 'ConversationAssigned' && last.data.assignee.type === 'agent' ? last.data.assignee.id : null;
}

/** Inbox, channel, priority, team and tags after these events. */
function asOf(events: readonly Event[]) {
  let inbox = '';
  let channel = '';
  let priority = '';
  let team: string | null = null;
  const tags: string[] = [];
  for (const { type, data } of events) {
    if (type === 'ConversationOpened') ({ inboxId: inbox, channel, priority } = data);
    else if (type === 'InboxChanged') inbox = data.to;
    else if (type === 'PriorityChanged') priority = data.to;
    else if (type === 'ConversationAssigned' || type === 'ConversationUnassigned') team = data.team?.id ?? null;
    else if (type === 'ConversationTeamChanged') team = data.to?.id ?? null;
    else if (type === 'TagsAdded') tags.push(...data.tags);
    else if (type === 'TagRemoved') tags.splice(tags.indexOf(data.tag), 1);
  }
  return { inbox, channel, priority, team, tags };
}

/** What a row of an answer holds of these; durations and times in seconds. */
export function rowOf(metric: string, facts: readonly Counted[], hours: 'calendar' | 'working'): Record<string, number | null> {
  const count = facts.length;
  const values = facts.flatMap(({ value, working }) => (hours === 'working' ? (working ?? []) : (value ?? []))).sort((a, b) => a - b);
  if (!['first_response_time', 'response_time', 'resolution_time', 'time_in_status', 'rating', 'reopen_rate'].includes(metric))
    return { count };
  const tell = (value: number) => (metric.includes('time') ? Math.round(value) / 1_000 : Math.round(value * 10_000) / 10_000);
  const sum = values.reduce((a, b) => a + b, 0);
  const row = { count, sum: tell(sum), mean: count === 0 ? null : tell(sum / count) };
  if (metric === 'reopen_rate') return row;
  const percentile = (fraction: number) => {
    if (count === 0) return null;
    const place = fraction * (count - 1);
    const low = values[Math.floor(place)] ?? 0;
    const high = values[Math.ceil(place)] ?? 0;
    return tell(low + (place - Math.floor(place)) * (high - low));
  };
  return { ...row, median: percentile(0.5), p90: percentile(0.9) };
}
