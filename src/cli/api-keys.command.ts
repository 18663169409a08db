import { apiKeyAggregate } from '../api-keys/api-key.js';
import { systemContext } from '../organizations/organization.writer.js';
import { ThreadlogError } from '../errors.js';
import { randomIds } from '../ids.js';
import { ROLES } from '../security/roles.js';
import { typedText } from '../texts/unseen-characters.js';
import { textFault } from '../http/validation.js';
import { type Command, CommandFailed, oneOf, parseCommandLine, WrongUsage } from './command.js';
import { chooseOrganization, withSession } from './session.js';
import type { Terminal } from './terminal.js';

const MAX_NAME = 200;

export const apiKeysCommand: Command = {
  help: `Usage: threadlog api-keys create --role ROLE [--agent ID] [--name NAME] [--organization ID] [--json]
       threadlog api-keys list [--organization ID] [--json]
       threadlog api-keys revoke ID [--organization ID] [--json]

create prints a new key, which is shown once. list prints the keys without their secrets. revoke ends a key: at once in the log and the
database, within a second in running servers.

  --role ROLE          ${ROLES.join(', ')}
  --agent ID           binds the key to this agent, who becomes the author of everything that the key sends
  --name NAME          how people recognize the key; the role by default
  --organization ID    may be left out while there is only one
  --json               print one JSON document: {id, key, role}, {keys: […]} or {id, revoked}`,

  async run([action, ...given], terminal) {
    switch (action) {
      case 'create':
        return create(given, terminal);
      case 'list':
        return list(given, terminal);
      case 'revoke':
        return revoke(given, terminal);
      case undefined:
        throw new WrongUsage('create, list or revoke is missing');
      default:
        throw new WrongUsage(`there is no "api-keys ${action}"`);
    }
  },
};

const COMMON = { organization: { type: 'string' }, json: { type: 'boolean' } } as const;

async function create(given: readonly string[], terminal: Terminal) {
  const options = { ...COMMON, role: { type: 'string' }, agent: { type: 'string' }, name: { type: 'string' } } as const;
  const { values } = parseCommandLine(given, options, []);
  if (values.role === undefined) throw new WrongUsage('--role is missing');
  const role = oneOf('--role', values.role, ROLES);
  const { agent: agentId } = values;
  const name = typedText(values.name ?? role);
  if (textFault(name, MAX_NAME) !== undefined) throw new WrongUsage(`--name is a text of 1 to ${MAX_NAME} characters`);
  return withSession(async (session) => {
    const organizationId = await chooseOrganization(session, values.organization);
    const context = systemContext(organizationId, randomIds.next());
    const { id, key } = await session.apiKeys.create(context, { name, role, ...(agentId === undefined ? {} : { agentId }) });
    if (values.json === true) {
      terminal.json({ id, key, role });
    } else {
      terminal.answer(`id   ${id}`);
      terminal.answer(`key  ${key}   (shown once)`);
    }
    return 0;
  });
}

async function list(given: readonly string[], terminal: Terminal) {
  const { values } = parseCommandLine(given, COMMON, []);
  return withSession(async (session) => {
    const organizationId = await chooseOrganization(session, values.organization);
    const { database, transactor } = session.backend;
    // From the table that decides which keys are accepted, since a read model may be behind it.
    const rows = await database
      .selectFrom('keep.api_keys')
      .select(['id', 'role', 'name', 'agent_id', 'created_at', 'expires_at', 'revoked_at'])
      .where('organization_id', '=', organizationId)
      .orderBy('created_at')
      .orderBy('id')
      .execute();
    const keys = [];
    for (const row of rows) {
      const known = await transactor.load(apiKeyAggregate, organizationId, row.id);
      keys.push({
        id: row.id,
        role: row.role,
        name: row.name,
        prefix: known?.state.prefix ?? null,
        agentId: row.agent_id,
        createdAt: row.created_at.toISOString(),
        expiresAt: row.expires_at?.toISOString() ?? null,
        revokedAt: row.revoked_at?.toISOString() ?? null,
      });
    }
    if (values.json === true) terminal.json({ keys });
    else
      terminal.table(
        ['ID', 'ROLE', 'NAME', 'KEY', 'AGENT', 'CREATED', 'ENDS'],
        keys.map((key) => [
          key.id,
          key.role,
          key.name,
          key.prefix === null ? '' : `${key.prefix}…`,
          key.agentId ?? '',
          key.createdAt,
          key.revokedAt === null ? (key.expiresAt ?? '') : `revoked ${key.revokedAt}`,
        ]),
        'There is no API key.',
      );
    return 0;
  });
}

async function revoke(given: readonly string[], terminal: Terminal) {
  const { values, positionals } = parseCommandLine(given, COMMON, ['ID']);
  const [id = ''] = positionals;
  return withSession(async (session) => {
    const organizationId = await chooseOrganization(session, values.organization);
    try {
      await session.apiKeys.revoke(systemContext(organizationId, randomIds.next()), id);
    } catch (error) {
      if (!(error instanceof ThreadlogError) || error.code !== 'not_found') throw error;
      throw new CommandFailed(`no API key has the id ${id} in the organization ${organizationId}`, { cause: error });
    }
    if (values.json === true) terminal.json({ id, revoked: true });
    else terminal.answer(`revoked ${id}`);
    return 0;
  });
}
