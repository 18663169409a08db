import { ThreadlogError, type FieldError } from '../errors.js';
import { PUBLIC_EVENTS } from '../conversations/public-event.js';

/** What else than public events a frame may tell of. */
export const PRESENCE_TYPES = ['presence.viewing', 'presence.typing'] as const;
export type PresenceType = (typeof PRESENCE_TYPES)[number];
export const LIVE_TYPES: readonly string[] = [...PUBLIC_EVENTS, ...PRESENCE_TYPES];

const FIELDS = ['inboxId', 'assigneeId', 'conversationId', 'types'] as const;
type Field = (typeof FIELDS)[number];

/** The most values of one field. */
const MOST_VALUES = 100;
const LONGEST_ID = 128;

/** Which frames a socket gets; a field that is absent narrows nothing. A frame must match every field, by any of its values. */
export type LiveFilter = { readonly [F in Field]?: ReadonlySet<string> };

/** The fields of a conversation by which a socket may be narrowed. `none` stands for nobody. */
export interface Placed {
  readonly inboxId: string;
  readonly assigneeId: string | null;
}

/**
 * Reads a filter from the address or from a client's message: a text with commas, or a list of texts.
 * @param given other names than those of a filter are wrong
 * @param pathOf how the client named a field
 * @throws ThreadlogError validation_failed that names every wrong field
 */
export function parseFilter(given: Readonly<Record<string, unknown>>, pathOf: (field: string) => string): LiveFilter {
  const errors: FieldError[] = [];
  const filter: { [F in Field]?: ReadonlySet<string> } = {};
  for (const [field, value] of Object.entries(given)) {
    const wrong = (message: string) => errors.push({ field: pathOf(field), message });
    if (!isField(field)) {
      wrong(`is no field of a filter, which are ${FIELDS.join(', ')}`);
      continue;
    }
    if (value === undefined || value === null) continue;
    const texts: readonly unknown[] = Array.isArray(value) ? value : [value];
    const values = texts.flatMap((text) => (typeof text === 'string' ? text.split(',') : [undefined])).map((text) => text?.trim());
    if (values.length > MOST_VALUES) wrong(`has at most ${MOST_VALUES} values`);
    else if (!values.every((text) => text !== undefined && text !== '' && text.length <= LONGEST_ID))
      wrong('must be texts, separated by commas or in a list');
    else if (field === 'types' && !values.every((text) => LIVE_TYPES.includes(text ?? ''))) wrong(`must be among ${LIVE_TYPES.join(', ')}`);
    else filter[field] = new Set(values as string[]);
  }
  if (errors.length > 0) throw new ThreadlogError('validation_failed', undefined, { errors });
  return filter;
}

function isField(name: string): name is Field {
  return (FIELDS as readonly string[]).includes(name);
}

/**
 * Whether a socket gets a frame.
 * @param places the conversation before and after the event: whoever had it is told that it left
 */
export function matches(filter: LiveFilter, type: string, conversationId: string, places: readonly Placed[]): boolean {
  const { types, conversationId: ids, inboxId: inboxes, assigneeId: assignees } = filter;
  if (types !== undefined && !types.has(type)) return false;
  if (ids !== undefined && !ids.has(conversationId)) return false;
  if (inboxes !== undefined && !places.some((place) => inboxes.has(place.inboxId))) return false;
  return assignees === undefined || places.some(({ assigneeId }) => assignees.has(assigneeId ?? 'none'));
}
