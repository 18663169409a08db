import { makeManySearches, MANY_SEARCHES } from '../support/many-searches.js';
import { organizationOf, p95Of } from './questions.js';

const REQUESTS = 20;

export interface SearchTimes {
  readonly name: string;
  readonly query: string;
  /** p95 in ms of GET /search, and of the first page of the list with the same question. */
  readonly search: number;
  readonly list: number;
}

/** Times of each shape of a question over HTTP, one after the other, on the conversations that measureLists() made, eight messages each. */
export async function measureSearches(server: { port: number; key: string; url: string }): Promise<SearchTimes[]> {
  const organizationId = await organizationOf(server.url);
  await makeManySearches(server.url, 'neighbour');
  await makeManySearches(server.url, organizationId);
  const p95 = (path: string) =>
    p95Of(server, path, REQUESTS, (status, { data }) => {
      if (data === undefined) throw new Error(`${path}: ${status}`);
    });
  const measured: SearchTimes[] = [];
  for (const [name, query] of MANY_SEARCHES)
    measured.push({ name, query, search: await p95(`search?${query}`), list: await p95(`conversations?${query}&total=none`) });
  return measured;
}
