import { ApiKeyWriter } from '../api-keys/api-key.writer.js';
import { type Backend, openBackend } from '../backend.js';
import { readConfig } from '../config.js';
import { OrganizationWriter } from '../organizations/organization.writer.js';
import { ApiKeyLookup } from '../security/api-key-lookup.js';
import { createLogger } from '../log.js';
import { AssigneeReader } from '../team/assignee.reader.js';
import { CommandFailed, type ExitCode } from './command.js';

/** Nobody waits for a command as clients wait for a server, and a busy machine must not make it fail (ms). */
const CONNECT_TIMEOUT_MS = 20_000;

/** An open backend with the services that commands need. */
export interface Session {
  readonly backend: Backend;
  readonly agents: AssigneeReader;
  readonly apiKeys: ApiKeyWriter;
  readonly organizations: OrganizationWriter;
}

/**
 * Opens the configured backend for as long as the work takes: joins the embedded PostgreSQL of a running server, or starts it and stops it
 * again. Warnings of the backend go to standard error.
 */
export async function withSession(work: (session: Session) => Promise<ExitCode>): Promise<ExitCode> {
  const backend = await openBackend(readConfig(), createLogger('warn', process.stderr), {
    name: 'threadlog-cli',
    connectTimeoutMs: CONNECT_TIMEOUT_MS,
  });
  try {
    const { transactor, database, masterKey, keys } = backend;
    const agents = new AssigneeReader(transactor);
    const apiKeys = new ApiKeyWriter(transactor, database, new ApiKeyLookup(database), masterKey, agents);
    const organizations = new OrganizationWriter(transactor, database, keys, apiKeys);
    return await work({ backend, agents, apiKeys, organizations });
  } finally {
    await backend.close();
  }
}

/**
 * The organization that a command works on: the one given by --organization, or the only one.
 * @throws CommandFailed
 */
export async function chooseOrganization({ organizations }: Session, given: string | undefined): Promise<string> {
  const known = (await organizations.listOrganizations()).map(({ id }) => id);
  const names = known.join(', ');
  if (given !== undefined) {
    if (known.includes(given)) return given;
    throw new CommandFailed(`no organization has the id ${given}${known.length === 0 ? '' : `; there are ${names}`}`);
  }
  const [only, ...others] = known;
  if (only === undefined)
    throw new CommandFailed('there is no organization yet: start Threadlog once, or make one with threadlog organizations create NAME');
  if (others.length > 0) throw new CommandFailed(`there are several organizations, so name one with --organization: ${names}`);
  return only;
}
