import { readConfig } from '../config.js';
import { type Command, CommandFailed, oneOf, parseCommandLine, WrongUsage } from './command.js';

export const databaseUrlCommand: Command = {
  help: `Usage: threadlog database-url [--role ROLE] [--json]

Prints a connection string for the database with the log and the read models, with all rights that the server has:
  psql "$(npx threadlog database-url)"
For the embedded PostgreSQL, Threadlog itself must be running.

  --role ROLE    operator (the default); analyst comes with analytics and is not available yet
  --json         print one JSON document: {url}`,

  async run(given, terminal) {
    const options = { role: { type: 'string' }, organization: { type: 'string' }, json: { type: 'boolean' } } as const;
    const { values } = parseCommandLine(given, options, []);
    if (oneOf('--role', values.role ?? 'operator', ['operator', 'analyst']) === 'analyst')
      throw new WrongUsage('the role analyst is not available before analytics');
    if (values.organization !== undefined)
      throw new WrongUsage('--organization goes with --role analyst: the operator sees every organization');
    const url = await findDatabase();
    if (values.json === true) terminal.json({ url });
    else terminal.answer(url);
    return 0;
  },
};

/** Does not start PostgreSQL just for this: it would be gone before anybody could connect. */
async function findDatabase(): Promise<string> {
  const { DATABASE_URL, DATA_DIR } = readConfig();
  if (DATABASE_URL !== undefined) return DATABASE_URL;
  const { findEmbeddedPostgres } = await import('../embedded-postgres/embedded-postgres.js');
  const found = await findEmbeddedPostgres(DATA_DIR);
  if (found === undefined) throw new CommandFailed(`no PostgreSQL runs on ${DATA_DIR}: start Threadlog with npm start, then ask again`);
  return found.url;
}
