import { VIEWS, type ViewId, viewOf } from './inbox/views.js';

/** What an address of the console shows. The address is all of it: a link shows another person the same. */
export interface Place {
  readonly view: ViewId;
  readonly conversationId: string | null;
}

const BASE = '/console/support';
const CONVERSATION = /^\/console\/support\/conversations\/([^/]+)\/?$/;

export function placeOf(address: Pick<URL, 'pathname' | 'searchParams'>): Place {
  const id = CONVERSATION.exec(address.pathname)?.[1];
  return { view: viewOf(address.searchParams.get('view')).id, conversationId: id === undefined ? null : decoded(id) };
}

export function addressOf({ view, conversationId }: Place): string {
  const path = conversationId === null ? BASE : `${BASE}/conversations/${encodeURIComponent(conversationId)}`;
  return view === VIEWS.at(-1)?.id ? path : `${path}?view=${view}`;
}

function decoded(id: string): string {
  try {
    return decodeURIComponent(id);
  } catch {
    // Not an id that the console wrote; it names nothing.
    return id;
  }
}
