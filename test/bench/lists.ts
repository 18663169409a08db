import { makeManyConversations, manyQuestions } from '../support/many-conversations.js';
import { organizationOf, p95Of } from './questions.js';

const REQUESTS = 40;

export interface ListTimes {
  readonly name: string;
  readonly query: string;
  /** p95 in ms of the page alone (`total=none`), and of page and total together. */
  readonly page: number;
  readonly withTotal: number;
}

/**
 * Times of the twelve questions over HTTP, one after the other, on an organization with so many conversations. Beside them lie those of
 * another, a tenth as many.
 */
export async function measureLists(server: { port: number; key: string; url: string }, conversations: number): Promise<ListTimes[]> {
  const organizationId = await organizationOf(server.url);
  await makeManyConversations(server.url, 'neighbour', Math.ceil(conversations / 10));
  await makeManyConversations(server.url, organizationId, conversations);
  const p95 = (query: string) =>
    p95Of(server, `conversations?${query}`, REQUESTS, (status, { data }) => {
      if (!Array.isArray(data) || data.length === 0) throw new Error(`${query}: ${status}, and no rows`);
    });
  const measured: ListTimes[] = [];
  for (const [name, query] of manyQuestions(conversations))
    measured.push({ name, query, page: await p95(`${query}&total=none`), withTotal: await p95(query) });
  return measured;
}
