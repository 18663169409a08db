import { makeManyFacts, MANY_NUMBERS } from '../support/many-facts.js';
import { organizationOf, p95Of } from './questions.js';

const REQUESTS = 20;

export interface NumberTimes {
  readonly name: string;
  readonly path: string;
  /** ms */
  readonly p95: number;
}

/**
 * Times of questions to analytics over HTTP, one after the other, on an organization with the facts of so many conversations. Beside them lie
 * those of another, a tenth as many.
 */
export async function measureNumbers(server: { port: number; key: string; url: string }, conversations: number): Promise<NumberTimes[]> {
  const organizationId = await organizationOf(server.url);
  await makeManyFacts(server.url, 'neighbour', Math.ceil(conversations / 10));
  await makeManyFacts(server.url, organizationId, conversations);
  const measured: NumberTimes[] = [];
  for (const [name, path] of MANY_NUMBERS) {
    const p95 = await p95Of(server, `analytics/${path}`, REQUESTS, (status) => {
      if (status !== 200) throw new Error(`${path}: ${status}`);
    });
    measured.push({ name, path, p95 });
  }
  return measured;
}
