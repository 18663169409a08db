import type { Channel, ConversationEvent, Priority, Status } from '../conversations/conversation.js';
import type { Recorded } from '../event-store/aggregate.js';
import type { WorkingHours } from '../inboxes/inbox.js';
import { workingTime } from '../inboxes/working-time.js';

/*
 * What the events of a conversation count for: facts, ended episodes and spans of waiting in a status. Each keeps inbox, team, tags and
 * people as they were at its event, so that no later change touches a number. Pure; nothing here is personal. Times are ms since 1970.
 */

/** What an event is counted as. `moved`: the status changed in another way than by reopening, resolving or closing. */
export const FACT_KINDS = ['opened', 'reopened', 'resolved', 'closed', 'moved', 'received', 'sent', 'automated'] as const;
export type FactKind = (typeof FACT_KINDS)[number];

/** By what facts are broken down, as of their event. */
export interface Dimensions {
  readonly inboxId: string;
  readonly channel: Channel;
  readonly priority: Priority;
  /** The agent who had the conversation. */
  readonly assigneeId: string | null;
  readonly teamId: string | null;
  readonly tags: readonly string[];
}

/** A length in calendar time, and how much of it lay within the working hours in force (ms). */
export interface Duration {
  readonly ms: number;
  readonly workingMs: number;
}

/** What one event counts as, and the durations that it ends. */
export interface Fact extends Dimensions {
  readonly kind: FactKind;
  readonly at: number;
  /** The person who did it: an agent, or an API key without an agent. */
  readonly personId: string | null;
  readonly firstResponse?: Duration | undefined;
  readonly response?: Duration | undefined;
  readonly resolution?: Duration | undefined;
  /** The time in the status that the event ended. */
  readonly inStatus?: (Duration & { readonly status: Status }) | undefined;
}

/** An episode that has ended, as it was at its end; what is said of it later follows. */
export interface EndedEpisode extends Dimensions {
  readonly episode: number;
  readonly startedAt: number;
  readonly endedAt: number;
  readonly endedBy: 'resolved' | 'closed';
  /** The revision of the event that ended it. */
  readonly revision: number;
  readonly personId: string | null;
  /** The latest rating; `ratedAt` and `ratedRevision` are of the first. */
  readonly rating: number | null;
  readonly ratedAt: number | null;
  readonly ratedRevision: number | null;
  readonly reopenedAt: number | null;
}

/** A time in which a conversation was open, pending or snoozed and nothing changed by which the backlog is broken down. */
export interface Span extends Dimensions {
  /** The revision of the event that began it. */
  readonly revision: number;
  readonly status: 'open' | 'pending' | 'snoozed';
  readonly from: number;
  /** Null while it lasts. */
  readonly to: number | null;
}

/** What must be known of a conversation to count its next event. */
export interface Tally extends Dimensions {
  readonly status: Status;
  readonly statusSince: number;
  readonly createdAt: number;
  readonly waitingSince: number | null;
  /** Who has written first; `answered` once a person has written, too. */
  readonly spoken: 'nobody' | 'visitor' | 'answered';
  readonly episode: number;
  readonly episodeSince: number;
  /** The latest ended episode, to which ratings go. */
  readonly ended: EndedEpisode | null;
  readonly span: { readonly revision: number; readonly from: number } | null;
}

export const initialTally: Tally = {
  inboxId: '',
  channel: 'api',
  priority: 'normal',
  assigneeId: null,
  teamId: null,
  tags: [],
  status: 'open',
  statusSince: 0,
  createdAt: 0,
  waitingSince: null,
  spoken: 'nobody',
  episode: 0,
  episodeSince: 0,
  ended: null,
  span: null,
};

/** What one event adds. */
export interface Counted {
  readonly tally: Tally;
  readonly fact?: Fact;
  readonly episode?: EndedEpisode;
  /** The span that the event ended, then the span that it began. */
  readonly spans: readonly Span[];
}

/**
 * Counts a conversation's next event.
 * @param hoursOf the working hours of an inbox that were in force at the event; null means always open
 */
export function countEvent(before: Tally, event: Recorded<ConversationEvent>, hoursOf: (inboxId: string) => WorkingHours | null): Counted {
  const at = Date.parse(event.metadata.occurredAt);
  const { actor } = event.metadata;
  const actingId = actor.type === 'agent' || actor.type === 'apiKey' ? actor.id : null;
  const since = (t: Tally, from: number): Duration => ({ ms: at - from, workingMs: workingTime(hoursOf(t.inboxId), from, at) });
  const factOf = (t: Tally, kind: FactKind, own: Omit<Partial<Fact>, keyof Dimensions | 'kind' | 'at'> = {}): Fact => {
    const { inboxId, channel, priority, assigneeId, teamId, tags } = t;
    return { inboxId, channel, priority, assigneeId, teamId, tags, kind, at, personId: actingId, ...own };
  };
  switch (event.type) {
    case 'ConversationOpened': {
      const { inboxId, channel, priority } = event.data;
      const opened = { ...before, inboxId, channel, priority, statusSince: at, createdAt: at, episode: 1, episodeSince: at };
      return { ...inSpan(before, opened, event.revision, at), fact: factOf(opened, 'opened') };
    }
    case 'MessageReceived': {
      const spoken = before.spoken === 'nobody' ? 'visitor' : before.spoken;
      return {
        tally: { ...before, spoken, waitingSince: before.waitingSince ?? at },
        fact: factOf(before, 'received', { personId: null }),
        spans: [],
      };
    }
    case 'MessageSent': {
      const { author } = event.data;
      if (author.type === 'automation') return { tally: before, fact: factOf(before, 'automated', { personId: null }), spans: [] };
      // Where the team wrote first there was nothing to respond to.
      const firstResponse = before.spoken === 'visitor' ? since(before, before.createdAt) : undefined;
      const response = before.waitingSince === null ? undefined : since(before, before.waitingSince);
      return {
        tally: { ...before, spoken: 'answered', waitingSince: null },
        fact: factOf(before, 'sent', { personId: author.id, firstResponse, response }),
        spans: [],
      };
    }
    case 'ConversationStatusChanged': {
      const { from, to, episode } = event.data;
      const ends = (to === 'resolved' || to === 'closed') && from !== 'resolved';
      const begins = episode !== before.episode;
      const reopened = begins && before.ended !== null ? { ...before.ended, reopenedAt: at } : before.ended;
      const ended: EndedEpisode | null = ends
        ? {
            ...dimensionsOf(before),
            episode,
            startedAt: before.episodeSince,
            endedAt: at,
            endedBy: to,
            revision: event.revision,
            personId: actingId,
            rating: null,
            ratedAt: null,
            ratedRevision: null,
            reopenedAt: null,
          }
        : reopened;
      const moved: Tally = {
        ...before,
        status: to,
        statusSince: at,
        waitingSince: to === 'resolved' || to === 'closed' ? null : before.waitingSince,
        episode,
        episodeSince: begins ? at : before.episodeSince,
        ended,
      };
      const kind = to === 'resolved' || to === 'closed' ? to : begins ? 'reopened' : 'moved';
      const fact = factOf(before, kind, {
        resolution: ends ? since(before, before.episodeSince) : undefined,
        inStatus: { status: before.status, ...since(before, before.statusSince) },
      });
      return { ...inSpan(before, moved, event.revision, at), fact, ...(ended !== null && (ends || begins) ? { episode: ended } : {}) };
    }
    case 'ConversationSnoozed': {
      // A new time for a snooze ends no status.
      if (before.status === 'snoozed') return { tally: before, spans: [] };
      const fact = factOf(before, 'moved', { inStatus: { status: before.status, ...since(before, before.statusSince) } });
      return { ...inSpan(before, { ...before, status: 'snoozed', statusSince: at }, event.revision, at), fact };
    }
    case 'ConversationAssigned': {
      const { assignee, team } = event.data;
      const assigneeId = assignee.type === 'agent' ? assignee.id : null;
      return inSpan(before, { ...before, assigneeId, teamId: team?.id ?? null }, event.revision, at);
    }
    case 'ConversationUnassigned':
      return inSpan(before, { ...before, assigneeId: null, teamId: event.data.team?.id ?? null }, event.revision, at);
    case 'ConversationTeamChanged':
      return inSpan(before, { ...before, teamId: event.data.to?.id ?? null }, event.revision, at);
    case 'TagsAdded':
      return inSpan(before, { ...before, tags: [...before.tags, ...event.data.tags] }, event.revision, at);
    case 'TagRemoved':
      return inSpan(before, { ...before, tags: before.tags.filter((tag) => tag !== event.data.tag) }, event.revision, at);
    case 'PriorityChanged':
      return inSpan(before, { ...before, priority: event.data.to }, event.revision, at);
    case 'InboxChanged':
      return inSpan(before, { ...before, inboxId: event.data.to }, event.revision, at);
    case 'ConversationRated': {
      const { rating, episode } = event.data;
      if (before.ended?.episode !== episode) throw new Error(`a rating of episode ${episode}, which is not the latest that ended`);
      const first = before.ended.ratedAt === null ? { ratedAt: at, ratedRevision: event.revision } : {};
      const ended = { ...before.ended, rating, ...first };
      return { tally: { ...before, ended }, episode: ended, spans: [] };
    }
    case 'NoteAdded':
    case 'SubjectChanged':
    case 'CustomAttributesChanged':
      return { tally: before, spans: [] };
  }
}

function dimensionsOf({ inboxId, channel, priority, assigneeId, teamId, tags }: Dimensions): Dimensions {
  return { inboxId, channel, priority, assigneeId, teamId, tags };
}

/** A conversation with more to be done for it counts in the backlog. */
const waits = (status: Status): status is Span['status'] => status !== 'resolved' && status !== 'closed';

/** Ends the span that lasts and begins the next one, at an event after which the backlog is broken down differently. */
function inSpan(before: Tally, after: Tally, revision: number, at: number): Pick<Counted, 'tally' | 'spans'> {
  const spans: Span[] = [];
  if (before.span !== null && waits(before.status)) spans.push({ ...dimensionsOf(before), ...before.span, status: before.status, to: at });
  if (!waits(after.status)) return { tally: { ...after, span: null }, spans };
  const span = { revision, from: at };
  spans.push({ ...dimensionsOf(after), ...span, status: after.status, to: null });
  return { tally: { ...after, span }, spans };
}
