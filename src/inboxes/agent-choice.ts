import type { Assignment } from './inbox.js';

/** A member of an inbox who may be given conversations: an agent who is online and not archived. */
export interface FreeMember {
  readonly id: string;
  readonly name: string;
  /** The number of conversations in status open that the agent has, in all inboxes. */
  readonly open: number;
  /** The position of the agent's last automatic assignment in this inbox; null when there was none. */
  readonly lastTurn: string | null;
}

/**
 * The member who gets the inbox's next conversation; undefined when nobody is free. `round_robin`: whose last turn is longest ago.
 * `least_busy`: who has the fewest open conversations, and of those whose last turn is longest ago. Members without a turn come first, in
 * the order of the inbox's list.
 * @param members in the order of the inbox's list
 * @param mayHave whether an agent may be given this conversation
 */
export function nextAgent<M extends FreeMember>(
  { mode, cap }: Pick<Assignment, 'mode' | 'cap'>,
  members: readonly M[],
  mayHave: (agentId: string) => boolean,
): M | undefined {
  if (mode === 'manual') return undefined;
  let next: M | undefined;
  for (const one of members) {
    if ((cap !== null && one.open >= cap) || !mayHave(one.id)) continue;
    if (next === undefined || isBefore(one, next, mode)) next = one;
  }
  return next;
}

function isBefore(a: FreeMember, b: FreeMember, mode: 'round_robin' | 'least_busy'): boolean {
  if (mode === 'least_busy' && a.open !== b.open) return a.open < b.open;
  return (a.lastTurn ?? '') < (b.lastTurn ?? '');
}

/** Whether an agent may be given a conversation: not the one from whom somebody took it, and in a team's queue only the team's members. */
export function mayHave(takenFrom: string | null, team: readonly string[] | null): (agentId: string) => boolean {
  return (agentId) => agentId !== takenFrom && (team === null || team.includes(agentId));
}
