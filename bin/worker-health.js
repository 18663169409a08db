// @ts-check
// Whether the worker of this container is at work: it answers no requests, but one that lives asks the database for its lease every few
// seconds. Ends with 0 or 1, as a health check does.
import pg from 'pg';

const client = new pg.Client({ connectionString: process.env.DATABASE_URL, connectionTimeoutMillis: 3_000, query_timeout: 3_000 });
try {
  await client.connect();
  const { rowCount } = await client.query(
    `select from pg_stat_activity
     where application_name like 'threadlog-worker%' and client_addr is not distinct from inet_client_addr() and state_change > now() - interval '30 seconds'`,
  );
  process.exitCode = rowCount === 0 ? 1 : 0;
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await client.end().catch(() => undefined);
}
