import {
  type Conversation,
  type ConversationEvent,
  evolveConversation,
  initialConversation,
  type Status,
} from '../../src/conversations/conversation.js';

/** One command and what its client saw of it. */
export interface Operation {
  /** Its X-Request-Id, which the log keeps as correlationId. */
  readonly name: string;
  readonly conversation: string;
  readonly kind:
    | { readonly is: 'status'; readonly to: Status }
    | { readonly is: 'snooze' }
    | { readonly is: 'assign'; readonly to: string | null }
    | { readonly is: 'tag' | 'untag'; readonly tag: string };
  readonly method: string;
  readonly path: string;
  readonly body: object | undefined;
  readonly ifMatch: number | undefined;
  /** performance.now() */
  readonly begun: number;
  answered: number;
  status: number;
  code?: string | undefined;
  /** Of the answer's ETag. */
  revision?: number | undefined;
}

type What = { readonly status: Status; readonly assignee: string | null; readonly tags: readonly string[] };

/**
 * Whether there is an order in which one after the other would have given these answers. The log says what the order is: every command that
 * wrote has its place by its events, and every other needs a revision that was current at some moment of its being under way, at which its
 * answer is the right one.
 * @returns what has no such place
 */
export function findFaults(
  operations: readonly Operation[],
  events: readonly { readonly revision: number; readonly correlationId: string; readonly event: ConversationEvent }[],
): string[] {
  const faults: string[] = [];
  const states = statesOf(events.map(({ event }) => event));
  events.forEach(({ revision }, i) => revision === i || faults.push(`revision ${revision} where ${i} should be`));
  const written = new Map<string, number[]>();
  for (const { correlationId, revision } of events) written.set(correlationId, [...(written.get(correlationId) ?? []), revision]);

  // Moments at which the log was at least, or not yet, at a revision: what a client was told, and when who wrote it had begun.
  const told = operations
    .filter(({ status, revision }) => status < 300 && revision !== undefined)
    .map(({ answered, revision = 0 }) => ({ at: answered, revision }))
    .sort((a, b) => a.at - b.at);
  const madeBy = operations
    .flatMap(({ name, begun }) => (written.get(name) ?? []).slice(0, 1).map((revision) => ({ at: begun, revision })))
    .sort((a, b) => a.at - b.at);
  /** The greatest revision that anybody had been told of before a moment. */
  const atLeast = (moment: number) => told.reduce((most, { at, revision }) => (at < moment ? Math.max(most, revision) : most), 0);
  /** What was begun after a moment cannot have been there at it. */
  const atMost = (moment: number) =>
    madeBy.reduce((least, { at, revision }) => (at > moment ? Math.min(least, revision - 1) : least), states.length - 1);

  for (const operation of operations) {
    const { name, kind, ifMatch, status, code, revision, begun, answered } = operation;
    const shown = `${JSON.stringify(kind)} ${ifMatch === undefined ? '' : `at ${ifMatch} `}→ ${status} ${code ?? ''} ${revision ?? ''} (${name})`;
    const own = written.get(name) ?? [];
    const [low, high] = [atLeast(begun), atMost(answered)];
    const somewhere = (holds: (state: What, revision: number) => boolean) => {
      for (let at = low; at <= high; at += 1) if (holds(states[at] as What, at)) return true;
      return false;
    };
    if (status >= 300 && own.length > 0) faults.push(`${shown}: refused, and written at ${own.join(', ')}`);
    else if (status === 200 && own.length > 0) {
      const [from = 0, to = from] = [own[0], own.at(-1)];
      if (to !== revision || own.some((one, i) => one !== from + i)) faults.push(`${shown}: written at ${own.join(', ')}`);
      else if (from <= low) faults.push(`${shown}: written at ${from}, though ${low} had been told of before it began`);
      else if (to > high) faults.push(`${shown}: written at ${to}, though ${high + 1} began after its answer`);
      else if (ifMatch !== undefined && ifMatch !== from - 1) faults.push(`${shown}: taken at ${from - 1}`);
      else if (!allows(states[from - 1] as What, operation)) faults.push(`${shown}: taken in ${JSON.stringify(states[from - 1])}`);
      else if (!done(states[to] as What, operation)) faults.push(`${shown}: made ${JSON.stringify(states[to])}`);
    } else if (status === 200) {
      if (revision === undefined || revision < low || revision > high) faults.push(`${shown}: not between ${low} and ${high}`);
      else if (!done(states[revision] as What, operation)) faults.push(`${shown}: nothing done in ${JSON.stringify(states[revision])}`);
      else if (ifMatch !== undefined && ifMatch !== revision) faults.push(`${shown}: taken at ${revision}`);
    } else if (status === 412) {
      if (!somewhere((_, at) => at !== ifMatch)) faults.push(`${shown}: the only revision from ${low} to ${high}`);
    } else if (code === 'transition_not_allowed') {
      if (!somewhere((state, at) => (ifMatch === undefined || ifMatch === at) && !allows(state, operation)))
        faults.push(`${shown}: allowed at all revisions from ${low} to ${high}`);
    } else if (code !== 'concurrent_changes') faults.push(`${shown}: no answer to such a command`);
  }
  return faults;
}

/** The state at each revision. */
function statesOf(events: readonly ConversationEvent[]): What[] {
  let state: Conversation = initialConversation;
  return events.map((event, revision) => {
    state = evolveConversation(state, {
      ...event,
      id: '',
      stream: '',
      revision,
      position: '',
      metadata: { occurredAt: '', actor: {} },
    } as never);
    return { status: state.status, assignee: state.assignee?.id ?? null, tags: [...state.tags] };
  });
}

/** The status table: what is refused in a status. A second telling of it. */
function allows({ status }: What, { kind }: Operation): boolean {
  if (status === 'closed') return false;
  return status !== 'resolved' || !(kind.is === 'snooze' || (kind.is === 'status' && kind.to === 'pending'));
}

function done({ status, assignee, tags }: What, { kind }: Operation): boolean {
  switch (kind.is) {
    case 'status':
      return status === kind.to;
    case 'snooze':
      return status === 'snoozed';
    case 'assign':
      return assignee === kind.to;
    case 'tag':
      return tags.includes(kind.tag);
    case 'untag':
      return !tags.includes(kind.tag);
  }
}
