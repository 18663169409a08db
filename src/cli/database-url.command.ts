import { readConfig } from '../config.js';
import { type Command, CommandFailed, oneOf, parseCommandLine, WrongUsage } from './command.js';
import type { Terminal } from './terminal.js';

export const databaseUrlCommand: Command = {
  help: `Usage: threadlog database-url [--role ROLE] [--organization ID] [--json]

Prints a connection string for the database:
  psql "$(npx threadlog database-url --role analyst)"
For the embedded PostgreSQL, Threadlog itself must be running.

  --role ROLE         operator (the default): the log and the read models, with all rights that the server has;
                      analyst: the views of the schema analytics, of one organization, read-only. Makes the
                      database role when it is missing
  --organization ID   the analyst's organization; may be left out while there is only one
  --json              print one JSON document: {url}`,

  async run(given, terminal) {
    const options = { role: { type: 'string' }, organization: { type: 'string' }, json: { type: 'boolean' } } as const;
    const { values } = parseCommandLine(given, options, []);
    const role = oneOf('--role', values.role ?? 'operator', ['operator', 'analyst']);
    if (role === 'operator' && values.organization !== undefined)
      throw new WrongUsage('--organization goes with --role analyst: the operator sees every organization');
    const operator = await findDatabase();
    const url = role === 'operator' ? operator : await analystUrl(operator, values.organization, terminal);
    if (values.json === true) terminal.json({ url });
    else terminal.answer(url);
    return 0;
  },
};

/** @throws CommandFailed */
async function analystUrl(operator: string, given: string | undefined, terminal: Terminal): Promise<string> {
  const { chooseOrganization, withSession } = await import('./session.js');
  const { makeAnalystRole, MayNotMakeRoles } = await import('../analytics/analyst.roles.js');
  const url = new URL(operator);
  await withSession(async (session) => {
    const { database, masterKey } = session.backend;
    try {
      const { role, password, makesTemporary } = await makeAnalystRole(database, masterKey, await chooseOrganization(session, given));
      url.username = role;
      url.password = password;
      if (makesTemporary)
        terminal.note(
          'analysts can make temporary tables in this database: let its owner run REVOKE TEMPORARY ON DATABASE ... FROM PUBLIC',
        );
    } catch (error) {
      if (!(error instanceof MayNotMakeRoles)) throw error;
      throw new CommandFailed(`${error.message}: let an administrator of the database run ALTER ROLE ... CREATEROLE for it`);
    }
    return 0;
  });
  return url.href;
}

/** Does not start PostgreSQL just for this: it would be gone before anybody could connect. */
async function findDatabase(): Promise<string> {
  const { DATABASE_URL, DATA_DIR } = readConfig();
  if (DATABASE_URL !== undefined) return DATABASE_URL;
  const { findEmbeddedPostgres } = await import('../embedded-postgres/embedded-postgres.js');
  const found = await findEmbeddedPostgres(DATA_DIR);
  if (found === undefined) throw new CommandFailed(`no PostgreSQL runs on ${DATA_DIR}: start Threadlog with npm start, then ask again`);
  return found.url;
}
