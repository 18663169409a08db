import { CommandBus } from '@nestjs/cqrs';
import type { INestApplicationContext } from '@nestjs/common';
import type { Backend } from './backend.js';
import {
  AddTags,
  AssignConversation,
  ChangeConversation,
  OpenConversation,
  ReceiveMessage,
  ReplyToConversation,
  SnoozeConversation,
} from './conversations/conversation.commands.js';
import type { CommandContext } from './commands/command-context.js';
import { OrganizationWriter, systemContext } from './organizations/organization.writer.js';
import { API_PREFIX } from './http/routes.js';
import { derivedId } from './ids.js';
import { ApiKeyLookup } from './security/api-key-lookup.js';
import { ConsoleSessions } from './security/console-sessions.js';
import { createAgent, createTeam, assigneeAggregate } from './team/assignee.js';

/** The organization of a fresh installation; other organizations get a random id. */
const FIRST_ORGANIZATION = 'main';

/**
 * Makes the first organization when there is none, with sample conversations unless DEMO=false. Every step derives its ids, so the next
 * start completes an interrupted one.
 * @returns prints the welcome text once the port is known
 */
export async function firstStart(backend: Backend, app: INestApplicationContext): Promise<(port: number) => void> {
  const { config } = backend;
  const organizations = app.get(OrganizationWriter);
  const [first, ...others] = await organizations.listOrganizations();
  let key: string | undefined;
  let link: string | undefined;
  if (first === undefined || (first.id === FIRST_ORGANIZATION && others.length === 0 && !(await organizations.hasKey(first.id)))) {
    const made = await organizations.createOrganization(config.DEMO ? 'Demo' : 'Main', {
      id: FIRST_ORGANIZATION,
      ...(config.BOOTSTRAP_API_KEY === undefined ? {} : { adminKey: config.BOOTSTRAP_API_KEY }),
      ...(config.DEMO ? { beforeKey: (id) => makeSamples(backend, app.get(CommandBus), id) } : {}),
    });
    key = made.adminKey;
    const holder = await app.get(ApiKeyLookup).recognize(key);
    if (holder !== undefined) link = await app.get(ConsoleSessions).makeLink(holder);
  }
  return (port) => {
    const url = `http://${config.HOST.includes(':') ? `[${config.HOST}]` : config.HOST}:${port}`;
    const shown = key ?? 'YOUR_API_KEY';
    const lines = [
      '',
      `  Threadlog listens on ${url}`,
      // After the #, so that no server and no log on the way is told the secret.
      link === undefined ? `  Console  ${url}/console` : `  Console  ${url}/console#sign-in=${link}   (works once, within a day)`,
      ...(key === undefined
        ? ['  API key  as before; `npx threadlog api-keys create --role admin` makes another']
        : [`  API key  ${config.BOOTSTRAP_API_KEY === undefined ? `${key}   (shown once)` : 'as given in BOOTSTRAP_API_KEY'}`]),
      '',
      `  curl -H 'X-API-Key: ${config.BOOTSTRAP_API_KEY === undefined ? shown : '…'}' ${url}${API_PREFIX}/conversations`,
      '',
      '  Ctrl-C stops all of it.',
      '',
    ];
    process.stdout.write(`${lines.join('\n')}\n`);
  };
}

/** A small support desk at work: two agents, a team, and a conversation in each status. */
async function makeSamples(backend: Backend, commands: CommandBus, organizationId: string): Promise<void> {
  const { transactor, clock } = backend;
  const step = (...name: readonly string[]): CommandContext =>
    systemContext(organizationId, derivedId('command', 'sample', organizationId, ...name));
  const asAgent = (agentId: string, ...name: readonly string[]): CommandContext => ({
    ...step(...name),
    actor: { type: 'agent', id: agentId },
  });
  await transactor.transact(assigneeAggregate, 'agent-ada', step('ada'), (state) =>
    createAgent({ name: 'Ada Ortiz', email: 'ada@example.com' })(state),
  );
  await transactor.transact(assigneeAggregate, 'agent-ben', step('ben'), (state) =>
    createAgent({ name: 'Ben Novak', email: 'ben@example.com' })(state),
  );
  await transactor.transact(assigneeAggregate, 'team-billing', step('billing'), (state) =>
    createTeam({ name: 'Billing', agentIds: ['agent-ada'] })(state),
  );

  const open = async (name: string, visitor: { name: string; email: string; plan?: string }, text: string): Promise<string> => {
    const { id } = await commands.execute(
      new OpenConversation(step(name, 'open'), 'Samples', {
        visitor,
        message: { type: 'text', content: text },
        channel: 'api',
        as: 'visitor',
      }),
    );
    return id;
  };
  const reply = (id: string, agentId: string, name: string, text: string) =>
    commands.execute(new ReplyToConversation(asAgent(agentId, name, 'reply'), 'Samples', id, 'reply', { type: 'text', content: text }));

  const card = await open('card', { name: 'Noor Haddad', email: 'noor@example.com', plan: 'pro' }, 'My card was charged twice for March.');
  await commands.execute(new AddTags(step('card', 'tag'), card, ['billing', 'urgent']));
  await commands.execute(new AssignConversation(step('card', 'assign'), card, { assigneeId: 'team-billing' }));
  await reply(card, 'agent-ada', 'card', 'I can see both charges. The second one will be refunded today.');
  await commands.execute(new ReceiveMessage(step('card', 'thanks'), card, { type: 'text', content: 'Thank you, that was quick!' }));

  const login = await open('login', { name: 'Mika Saar', email: 'mika@example.com' }, 'The sign-in link in your e-mail has expired.');
  await reply(login, 'agent-ben', 'login', 'Here is a new one. Does it work?');
  await commands.execute(new ChangeConversation(asAgent('agent-ben', 'login', 'pending'), login, { status: 'pending' }));

  const invoice = await open(
    'invoice',
    { name: 'Lena Brandt', email: 'lena@example.com', plan: 'enterprise' },
    'Could you put our VAT number on the invoice?',
  );
  const inTwoDays = new Date(clock.now() + 2 * 24 * 60 * 60 * 1000).toISOString();
  await commands.execute(new SnoozeConversation(asAgent('agent-ada', 'invoice', 'snooze'), invoice, inTwoDays));

  const colour = await open('colour', { name: 'Tomás Reyes', email: 'tomas@example.com' }, 'Can I change the colour of the widget?');
  await reply(colour, 'agent-ben', 'colour', 'Yes: Settings, Appearance, Accent colour.');
  await commands.execute(new ChangeConversation(asAgent('agent-ben', 'colour', 'resolve'), colour, { status: 'resolved' }));
}
