import pg from 'pg';
import { percentile } from './http-load.js';

/** The organization of the server that is measured. */
export async function organizationOf(databaseUrl: string): Promise<string> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  const { rows } = await client.query<{ organization_id: string }>('select organization_id from threadlog.organizations');
  await client.end();
  const organizationId = rows[0]?.organization_id;
  if (organizationId === undefined) throw new Error('there is no organization');
  return organizationId;
}

/** The p95 (ms) of so many GETs, one after the other, after one that is not counted. @param check throws for a wrong answer */
export async function p95Of(
  server: { readonly port: number; readonly key: string },
  path: string,
  requests: number,
  check: (status: number, body: { readonly data?: unknown }) => void,
): Promise<number> {
  const ask = async (): Promise<number> => {
    const began = performance.now();
    const response = await fetch(`http://127.0.0.1:${server.port}/api/support/${path}`, { headers: { 'x-api-key': server.key } });
    check(response.status, (await response.json()) as { data?: unknown });
    return performance.now() - began;
  };
  await ask();
  const times: number[] = [];
  for (let i = 0; i < requests; i++) times.push(await ask());
  return percentile(
    times.sort((a, b) => a - b),
    0.95,
  );
}
