import { z } from 'zod';
import type { ConversationFilter, Sort } from '../conversations/conversation.list.js';
import { ThreadlogError } from '../errors.js';
import type { Aggregate } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';
import type { CallerRole } from '../security/roles.js';

type Times = 'createdAfter' | 'createdBefore' | 'updatedAfter' | 'updatedBefore';

/** A filter of GET /conversations under its names there, with instants as ISO 8601: a stored filter can be sent to the list unchanged. */
export type ViewFilter = Omit<ConversationFilter, Times> & { readonly [time in Times]?: string };

export interface ViewSort {
  readonly by: Sort;
  readonly order: 'asc' | 'desc';
}

/** The agent that made a view, or the API key that acted for no agent. */
export interface ViewOwner {
  readonly type: 'agent' | 'apiKey';
  readonly id: string;
}

/** Who asks, and with which role. */
export interface ViewCaller {
  readonly self: ViewOwner;
  readonly role: CallerRole;
}

/** A saved query for the list of conversations. It holds no message content. */
export interface ViewFields {
  readonly name: string;
  /** From viewFilter(), so that equal filters have equal JSON. */
  readonly filter: ViewFilter;
  readonly sort: ViewSort;
  /** True: everybody in the organization sees it. False: only its owner and auditors do. */
  readonly shared: boolean;
}

export type ViewEvent =
  | { readonly type: 'ViewCreated'; readonly data: ViewFields & { readonly owner: ViewOwner } }
  /** Only the fields to change; a filter and a sort are replaced as a whole. */
  | { readonly type: 'ViewChanged'; readonly data: Partial<ViewFields> }
  | { readonly type: 'ViewArchived'; readonly data: Record<string, never> }
  | { readonly type: 'ViewUnarchived'; readonly data: Record<string, never> };

export interface View extends ViewFields {
  readonly exists: boolean;
  readonly archived: boolean;
  readonly owner: ViewOwner;
  readonly createdAt: string;
  readonly updatedAt: string;
}

const texts = z.array(z.string()).optional();
const text = z.string().optional();
/**
 * Strict: without a name that this build does not know, a filter would find too much. A new filter, status, priority or sort needs a new
 * version of both events, and a removed value needs an upcast, so that every stored view can be listed and counted.
 */
const fields = {
  name: z.string(),
  filter: z.strictObject({
    status: z.array(z.enum(['open', 'pending', 'snoozed', 'resolved', 'closed'])).optional(),
    priority: z.array(z.enum(['urgent', 'high', 'normal', 'low'])).optional(),
    teamId: texts,
    inboxId: texts,
    assigneeId: texts,
    visitorId: texts,
    companyId: texts,
    tag: texts,
    tagMatch: z.enum(['any', 'all']).optional(),
    createdAfter: text,
    createdBefore: text,
    updatedAfter: text,
    updatedBefore: text,
    customAttributes: z.record(z.string(), z.string()).optional(),
  }),
  sort: z.object({ by: z.enum(['updatedAt', 'createdAt', 'waitingSince', 'priority']), order: z.enum(['asc', 'desc']) }),
  shared: z.boolean(),
};

export const viewAggregate: Aggregate<View, ViewEvent> = {
  kind: 'view',
  codec: schemaCodec<ViewEvent>({
    ViewCreated: [z.object({ ...fields, owner: z.object({ type: z.enum(['agent', 'apiKey']), id: z.string() }) })],
    ViewChanged: [z.object(fields).partial()],
    ViewArchived: [z.object({})],
    ViewUnarchived: [z.object({})],
  }),
  initial: {
    exists: false,
    archived: false,
    name: '',
    filter: {},
    sort: { by: 'updatedAt', order: 'desc' },
    shared: false,
    owner: { type: 'apiKey', id: '' },
    createdAt: '',
    updatedAt: '',
  },
  evolve: (before, event) => {
    const at = event.metadata.occurredAt;
    switch (event.type) {
      case 'ViewCreated':
        return { ...before, ...event.data, exists: true, createdAt: at, updatedAt: at };
      case 'ViewChanged':
        return { ...before, ...event.data, updatedAt: at };
      case 'ViewArchived':
        return { ...before, archived: true, updatedAt: at };
      case 'ViewUnarchived':
        return { ...before, archived: false, updatedAt: at };
    }
  },
};

const isOwner = ({ owner }: View, { self }: ViewCaller) => owner.type === self.type && owner.id === self.id;

/** Whether the caller may see it: admins see no more of another owner's private views than others do; auditors see all views. */
export const isVisible = (v: View, by: ViewCaller): boolean => v.exists && (v.shared || by.role === 'auditor' || isOwner(v, by));

export type ViewDecision = (v: View) => readonly ViewEvent[];

/** Returns no event when the id is taken: callers that need a new view must check. */
export function createView({ name, filter, sort, shared }: ViewFields, owner: ViewOwner): ViewDecision {
  return (v) => (v.exists ? [] : [{ type: 'ViewCreated', data: { name, filter, sort, shared, owner } }]);
}

/** Appends only the differences. @throws ThreadlogError not_found, forbidden, resource_archived */
export function changeView(changes: Partial<ViewFields>, by: ViewCaller): ViewDecision {
  return (v) => {
    requireWritable(v, by);
    if (v.archived) throw new ThreadlogError('resource_archived');
    if (v.shared && changes.shared === false && !isOwner(v, by))
      throw new ThreadlogError('forbidden', 'only its owner makes a shared view private: nobody else would see it any more');
    const differing = Object.fromEntries(
      Object.entries(changes).filter(
        ([field, value]) => value !== undefined && JSON.stringify(value) !== JSON.stringify(v[field as keyof ViewFields]),
      ),
    );
    return Object.keys(differing).length === 0 ? [] : [{ type: 'ViewChanged', data: differing }];
  };
}

/** @throws ThreadlogError not_found, forbidden */
export function archiveView(by: ViewCaller): ViewDecision {
  return (v) => {
    requireWritable(v, by);
    return v.archived ? [] : [{ type: 'ViewArchived', data: {} }];
  };
}

/** @throws ThreadlogError not_found, forbidden */
export function unarchiveView(by: ViewCaller): ViewDecision {
  return (v) => {
    requireWritable(v, by);
    return v.archived ? [{ type: 'ViewUnarchived', data: {} }] : [];
  };
}

function requireWritable(v: View, by: ViewCaller): void {
  if (!isVisible(v, by)) throw new ThreadlogError('not_found');
  if (!isOwner(v, by) && by.role !== 'admin') throw new ThreadlogError('forbidden', 'a shared view is changed by its owner or an admin');
}

/** A filter as views store it: every value once, and attributes sorted by name. */
export function viewFilter(filter: ConversationFilter): ViewFilter {
  const { createdAfter, createdBefore, updatedAfter, updatedBefore, customAttributes, ...others } = filter;
  const instant = (ms: number | undefined) => (ms === undefined ? undefined : new Date(ms).toISOString());
  return given({
    ...Object.fromEntries(
      Object.entries(others).map(([name, value]) => [name, Array.isArray(value) ? [...new Set<unknown>(value)] : value]),
    ),
    createdAfter: instant(createdAfter),
    createdBefore: instant(createdBefore),
    updatedAfter: instant(updatedAfter),
    updatedBefore: instant(updatedBefore),
    customAttributes:
      customAttributes === undefined
        ? undefined
        : Object.fromEntries(Object.entries(customAttributes).sort(([a], [b]) => (a < b ? -1 : 1))),
  });
}

/** A view's filter as the list of conversations takes it. */
export function conversationFilter({
  createdAfter,
  createdBefore,
  updatedAfter,
  updatedBefore,
  ...others
}: ViewFilter): ConversationFilter {
  const ms = (instant: string | undefined) => (instant === undefined ? undefined : Date.parse(instant));
  return given({
    ...others,
    createdAfter: ms(createdAfter),
    createdBefore: ms(createdBefore),
    updatedAfter: ms(updatedAfter),
    updatedBefore: ms(updatedBefore),
  });
}

const given = (fields: object) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
