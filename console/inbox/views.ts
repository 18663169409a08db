import type { ConversationSummary } from '../../src/conversations/conversation.answer.js';

export type ViewId = 'mine' | 'unassigned' | 'waiting' | 'snoozed' | 'all';

/** A list of conversations: how the API is asked for it, and which conversations of the feed are in it. The two must agree. */
export interface View {
  readonly id: ViewId;
  readonly title: string;
  readonly sort: 'updatedAt' | 'waitingSince';
  /** The parameters of GET /conversations. */
  readonly query: (me: string | null) => Readonly<Record<string, string | readonly string[]>>;
  readonly includes: (conversation: ConversationSummary, me: string | null) => boolean;
  /** Why the view is empty. */
  readonly empty: string;
}

const ACTIVE = ['open', 'pending', 'snoozed'] as const;
const isActive = ({ status }: ConversationSummary) => (ACTIVE as readonly string[]).includes(status);

/** The built-in views, in the order of their keys. */
export const VIEWS: readonly View[] = [
  {
    id: 'mine',
    title: 'Mine',
    sort: 'updatedAt',
    query: (me) => ({ status: ACTIVE, assigneeId: me ?? 'none' }),
    includes: (one, me) => isActive(one) && me !== null && one.assignee?.id === me,
    empty: 'Nothing is assigned to you.',
  },
  {
    id: 'unassigned',
    title: 'Unassigned',
    sort: 'updatedAt',
    query: () => ({ status: ACTIVE, assigneeId: 'none' }),
    includes: (one) => isActive(one) && one.assignee === null,
    empty: 'Everything has an assignee.',
  },
  {
    id: 'waiting',
    title: 'Waiting',
    sort: 'waitingSince',
    query: () => ({ status: ACTIVE }),
    includes: (one) => isActive(one) && one.waitingSince !== null,
    empty: 'Nobody waits for an answer.',
  },
  {
    id: 'snoozed',
    title: 'Snoozed',
    sort: 'updatedAt',
    query: () => ({ status: ['snoozed'] }),
    includes: ({ status }) => status === 'snoozed',
    empty: 'Nothing sleeps.',
  },
  {
    id: 'all',
    title: 'All',
    sort: 'updatedAt',
    query: () => ({}),
    includes: () => true,
    empty: 'There are no conversations yet.',
  },
];

export const viewOf = (id: string | null): View => VIEWS.find((view) => view.id === id) ?? (VIEWS[4] as View);
