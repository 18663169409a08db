import { organizationAggregate } from '../organizations/organization.js';
import { typedText } from '../texts/unseen-characters.js';
import { textFault } from '../http/validation.js';
import { type Command, CommandFailed, parseCommandLine, WrongUsage } from './command.js';
import { withSession } from './session.js';
import type { Terminal } from './terminal.js';

const MAX_NAME = 200;
const ID = /^[a-z0-9][a-z0-9-]{0,63}$/;

export const organizationsCommand: Command = {
  help: `Usage: threadlog organizations create NAME [--id ID] [--json]
       threadlog organizations list [--json]

create makes an organization with its default inbox and prints an admin key for it. The key is shown once.
list prints the organizations, oldest first.

  --id ID    1 to 64 of a-z 0-9 - for the new organization; random by default
  --json     print one JSON document: {id, adminKey, adminKeyId}, or {organizations: [{id, name, createdAt}]}`,

  async run([action, ...given], terminal) {
    switch (action) {
      case 'create':
        return create(given, terminal);
      case 'list':
        return list(given, terminal);
      case undefined:
        throw new WrongUsage('create or list is missing');
      default:
        throw new WrongUsage(`there is no "organizations ${action}"`);
    }
  },
};

async function create(given: readonly string[], terminal: Terminal) {
  const { values, positionals } = parseCommandLine(given, { id: { type: 'string' }, json: { type: 'boolean' } } as const, ['NAME']);
  const name = typedText(positionals[0] ?? '');
  if (textFault(name, MAX_NAME) !== undefined) throw new WrongUsage(`NAME is a text of 1 to ${MAX_NAME} characters`);
  if (values.id !== undefined && !ID.test(values.id)) throw new WrongUsage('--id is 1 to 64 of a-z 0-9 - and does not begin with a dash');
  return withSession(async ({ backend, organizations }) => {
    const { id } = values;
    // Completes an organization that a crash left half made; a complete one must not get another admin key by accident.
    if (id !== undefined && (await backend.transactor.load(organizationAggregate, id, id)) !== undefined) {
      const key = await backend.database.selectFrom('keep.api_keys').select('id').where('organization_id', '=', id).executeTakeFirst();
      if (key !== undefined) throw new CommandFailed(`an organization with the id ${id} exists`);
    }
    const made = await organizations.createOrganization(name, id === undefined ? {} : { id });
    if (values.json === true) {
      terminal.json({ id: made.organizationId, adminKey: made.adminKey, adminKeyId: made.adminKeyId });
    } else {
      terminal.answer(`organization  ${made.organizationId}`);
      terminal.answer(`admin key     ${made.adminKey}   (shown once)`);
    }
    return 0;
  });
}

async function list(given: readonly string[], terminal: Terminal) {
  const { values } = parseCommandLine(given, { json: { type: 'boolean' } } as const, []);
  return withSession(async ({ organizations }) => {
    const known = await organizations.listOrganizations();
    if (values.json === true) terminal.json({ organizations: known });
    else
      terminal.table(
        ['ID', 'NAME', 'CREATED'],
        known.map(({ id, name, createdAt }) => [id, name, createdAt]),
        'There is no organization yet.',
      );
    return 0;
  });
}
