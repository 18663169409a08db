import pg from 'pg';
import { makeManyConversations, manyQuestions } from '../support/many-conversations.js';
import { percentile } from './http-load.js';

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
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  const { rows } = await client.query<{ organization_id: string }>('select organization_id from threadlog.organizations');
  await client.end();
  const organizationId = rows[0]?.organization_id;
  if (organizationId === undefined) throw new Error('there is no organization');
  await makeManyConversations(server.url, 'neighbour', Math.ceil(conversations / 10));
  await makeManyConversations(server.url, organizationId, conversations);
  const ask = async (query: string): Promise<number> => {
    const began = performance.now();
    const response = await fetch(`http://127.0.0.1:${server.port}/api/support/conversations?${query}`, {
      headers: { 'x-api-key': server.key },
    });
    const { data } = (await response.json()) as { data?: unknown[] };
    if (data === undefined || data.length === 0) throw new Error(`${query}: ${response.status}, and no rows`);
    return performance.now() - began;
  };
  const p95 = async (query: string): Promise<number> => {
    await ask(query);
    const times: number[] = [];
    for (let i = 0; i < REQUESTS; i++) times.push(await ask(query));
    return percentile(
      times.sort((a, b) => a - b),
      0.95,
    );
  };
  const measured: ListTimes[] = [];
  for (const [name, query] of manyQuestions(conversations))
    measured.push({ name, query, page: await p95(`${query}&total=none`), withTotal: await p95(query) });
  return measured;
}
