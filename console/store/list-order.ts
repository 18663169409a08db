import type { ConversationSummary } from '../../src/conversations/conversation.answer.js';
import type { View } from '../inbox/views.js';

/** The rows of a view as they would stand now, and as they do stand while somebody points at one. */
export interface Order {
  readonly ids: readonly string[];
  /** How many rows would come, go or move. */
  readonly moved: number;
}

/** How far a list has been read: rows beyond the last one are not known yet. */
export type ReadUpTo = { readonly last: ConversationSummary } | 'nothing' | 'the end';

/** The ids of a view, in its order. */
export function orderOf(
  view: View,
  conversations: Iterable<ConversationSummary>,
  me: string | null,
  readUpTo: ReadUpTo,
): readonly string[] {
  const compare = comparing(view);
  return [...conversations]
    .filter((one) => view.includes(one, me))
    .filter((one) => readUpTo === 'the end' || (readUpTo !== 'nothing' && compare(one, readUpTo.last) <= 0))
    .sort(compare)
    .map(({ id }) => id);
}

/** The order that is shown: it stands still while pointer or keyboard is in the list, and tells what would move. */
export function heldOrder(shown: readonly string[], now: readonly string[], isHeld: boolean): Order {
  if (!isHeld || shown.length === 0) return { ids: now, moved: 0 };
  const places = new Map(shown.map((id, place) => [id, place]));
  const isThere = new Set(now);
  const moved = now.filter((id, place) => places.get(id) !== place).length + shown.filter((id) => !isThere.has(id)).length;
  return { ids: shown, moved };
}

/** As the API sorts: newest change first, or whoever has waited longest. */
function comparing({ sort }: View): (a: ConversationSummary, b: ConversationSummary) => number {
  const text = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
  return sort === 'waitingSince'
    ? (a, b) => text(a.waitingSince ?? '~', b.waitingSince ?? '~') || text(a.id, b.id)
    : (a, b) => text(b.updatedAt, a.updatedAt) || text(b.id, a.id);
}
