// A process that starts (or joins) the embedded PostgreSQL of a folder and holds it: `node --import …/typescript.mjs this.ts '<options as JSON>'`.
// It prints one JSON line when it stands, one per log line, one when it has stopped, and stops when its stdin closes.
import { startEmbeddedPostgres, type EmbeddedPostgresOptions } from '../../src/embedded-postgres/embedded-postgres.js';

function tell(fact: object): void {
  process.stdout.write(`${JSON.stringify(fact)}\n`);
}

// As the server does: it drains first. What this process does about a signal is not under test.
process.on('SIGINT', () => undefined);

try {
  const options = JSON.parse(process.argv[2] ?? '{}') as EmbeddedPostgresOptions;
  const server = await startEmbeddedPostgres({ ...options, log: (line) => tell({ log: line }) });
  tell({ url: server.url, adopted: server.adopted });
  process.stdin.resume();
  process.stdin.on('end', () => {
    void server.stop().then(() => {
      tell({ stopped: true });
      process.exit(0);
    });
  });
} catch (error) {
  tell({ error: error instanceof Error ? error.message : String(error), name: error instanceof Error ? error.name : '' });
  process.exit(1);
}
