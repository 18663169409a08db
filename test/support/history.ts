import type { TestApi } from './api.js';
import type { SeededRandom } from './seeded-random.js';

/** What a history has made, by the path of its list. */
export interface MadeResources {
  readonly conversations: string[];
  readonly visitors: string[];
  readonly companies: string[];
  readonly inboxes: string[];
  readonly agents: string[];
  readonly teams: string[];
  readonly 'api-keys': string[];
  readonly 'canned-responses': string[];
  readonly views: string[];
  readonly 'automation-rules': string[];
}

const WORDS = ['refund', 'Müller', 'naïve façade', '好 👍', '"quoted"', 'line\nbreak', '\u2028', 'İstanbul', 'a\\b', '{}', "O'Brien"];
const TAGS = ['billing', 'Billing', 'über', 'x y', 'vip/1', '100%'];
const DAY = 24 * 60 * 60 * 1000;

/**
 * A history of everything that the API can do, over HTTP: the same seed sends the same requests in the same order. Many of them conflict or
 * change nothing, as real ones do.
 * @throws Error when an answer is a fault of the server
 */
export async function writeHistory(api: TestApi, random: SeededRandom, commands: number): Promise<MadeResources> {
  const made: MadeResources = {
    conversations: [],
    visitors: [],
    companies: [],
    inboxes: [],
    agents: [],
    teams: [],
    'api-keys': [],
    'canned-responses': [],
    views: [],
    'automation-rules': [],
  };
  let number = 0;
  const text = () => `${random.pick(WORDS)} ${random.pick(WORDS)} ${number}`;
  const maybe = (part: object) => (random.int(2) === 0 ? part : {});
  const any = (ids: readonly string[]) => (ids.length === 0 ? 'nobody' : random.pick(ids));
  const attributes = () => ({ [random.pick(['plan', 'Größe', 'n'])]: random.pick<unknown>(['pro', 7, 0.1, true, null, text()]) });
  const message = () =>
    random.pick<() => unknown>([
      text,
      text,
      () => ({ type: 'text', content: text() }),
      () => ({
        type: 'card',
        content: {
          title: text(),
          actions: [
            { label: 'Go', url: 'https://example.com/a?b=c' },
            { label: 'Do', action: 'x' },
          ],
        },
      }),
      () => ({
        type: 'attachment',
        content: text(),
        attachments: [{ name: 'a b.pdf', url: 'https://example.com/1', type: 'application/pdf', size: random.int(9_999) }],
      }),
    ])();
  const send = async (method: string, path: string, body?: object) => {
    number++;
    const headers = {
      ...(random.int(3) === 0 ? { 'x-agent-id': any(made.agents) } : {}),
      ...(method === 'POST' && random.int(3) === 0 ? { 'idempotency-key': `key-${number}` } : {}),
    };
    const once = () => api.call(method, path, { ...(body === undefined ? {} : { body }), headers });
    const answer = await once();
    if (answer.status >= 500)
      throw new Error(`${method} ${path} ${JSON.stringify(body)}: ${answer.text}\n${api.logged().split('\n').slice(-3).join('\n')}`);
    if ('idempotency-key' in headers && (await once()).text !== answer.text && answer.status < 300)
      throw new Error(`${method} ${path} sent again: another answer`);
    return answer;
  };
  const make = async (kind: keyof MadeResources, body: object) => {
    const answer = await send('POST', `/${kind}`, body);
    if (answer.status === 201) made[kind].push(answer.body.data.id as string);
  };
  const conversation = () => `/conversations/${any(made.conversations)}`;
  const visitor = () => ({
    ...maybe({ name: text() }),
    ...random.pick<object>([{ email: `Person-${random.int(6)}@example.com` }, { userId: `u-${random.int(5)}` }, { phone: '+49 30 1' }]),
    ...maybe({ attributes: attributes() }),
    ...(made.companies.length > 0 ? maybe({ companyId: any(made.companies) }) : {}),
  });
  const opened = () =>
    make('conversations', {
      visitor: random.int(4) === 0 && made.visitors.length > 0 ? { id: any(made.visitors) } : visitor(),
      message: message(),
      ...maybe({ subject: text() }),
      ...maybe({ priority: random.pick(['urgent', 'high', 'normal', 'low']) }),
      ...maybe({ customAttributes: attributes() }),
      ...(made.inboxes.length > 0 ? maybe({ inboxId: any(made.inboxes) }) : {}),
      ...(random.int(5) === 0 ? { as: 'agent' } : {}),
      ...(random.int(5) === 0 ? { previousConversationId: any(made.conversations) } : {}),
    });

  const often: (() => Promise<unknown>)[] = [
    opened,
    opened,
    () => send('POST', `${conversation()}/messages`, { message: message() }),
    () => send('POST', `${conversation()}/reply`, { message: message(), ...maybe({ type: random.pick(['reply', 'note']) }) }),
    () => send('POST', `${conversation()}/reply`, { message: message(), status: random.pick(['pending', 'resolved', 'open']) }),
    () => send('POST', `${conversation()}/assign`, { assigneeId: random.pick([null, any(made.agents), any(made.teams)]) }),
    () => send('POST', `${conversation()}/tags`, { tags: [random.pick(TAGS), random.pick(TAGS)] }),
    () => send('PUT', conversation(), { status: random.pick(['open', 'pending', 'resolved', 'closed']) }),
    () =>
      send('PUT', conversation(), {
        ...maybe({ subject: random.pick([null, text()]) }),
        customAttributes: attributes(),
        ...maybe({ priority: 'high' }),
      }),
  ];
  const seldom: (() => Promise<unknown>)[] = [
    () => send('DELETE', `${conversation()}/tags/${encodeURIComponent(random.pick(TAGS))}`),
    () =>
      send('POST', `${conversation()}/snooze`, {
        until: random.pick(['next_reply', new Date(api.clock.now() + random.pick([1, 300]) * DAY).toISOString()]),
      }),
    () => send('POST', `${conversation()}/rating`, { rating: 1 + random.int(5), ...maybe({ comment: text() }) }),
    () => send('PUT', conversation(), { inboxId: any(made.inboxes) }),
    () => make('visitors', { ...visitor(), ...maybe({ plan: 'pro', avatarUrl: 'https://example.com/a.png' }) }),
    () =>
      send(
        'PUT',
        `/visitors/${any(made.visitors)}`,
        random.pick<object>([{ email: `person-${random.int(6)}@example.com` }, { name: null }, visitor()]),
      ),
    () => make('companies', { id: `company-${random.int(4)}`, name: text(), ...maybe({ attributes: attributes() }) }),
    () => send('PUT', `/companies/${any(made.companies)}`, { name: text() }),
    () => make('inboxes', { id: `inbox-${random.int(4)}`, name: text(), ...maybe({ description: text(), color: '#aabbcc' }) }),
    () => send('PUT', `/inboxes/${any(made.inboxes)}`, random.pick<object>([{ isDefault: true }, { name: text() }])),
    () => make('agents', { id: `agent-${random.int(5)}`, name: text(), ...maybe({ email: `agent-${number}@example.com` }) }),
    () => send('PUT', `/agents/${any(made.agents)}`, random.pick<object>([{ availability: 'away' }, { name: text() }])),
    () => make('teams', { id: `team-${random.int(3)}`, name: text(), agentIds: made.agents.slice(0, random.int(3)) }),
    () => send('PUT', `/teams/${any(made.teams)}`, { agentIds: made.agents.slice(0, random.int(4)) }),
    () => make('canned-responses', { title: text(), shortcut: `short-${random.int(5)}`, content: `${text()} {{visitor.name | "there"}}` }),
    () =>
      send(
        'PUT',
        `/canned-responses/${any(made['canned-responses'])}`,
        random.pick<object>([{ shortcut: `short-${random.int(5)}` }, { title: text() }]),
      ),
    () =>
      make('views', {
        name: text(),
        filter: {
          ...maybe({ status: ['open'] }),
          ...maybe({ tag: [random.pick(TAGS)] }),
          ...maybe({ assigneeId: ['none', any(made.agents)] }),
        },
        ...maybe({ shared: true }),
      }),
    () =>
      send('PUT', `/views/${any(made.views)}`, random.pick<object>([{ name: text() }, { shared: false }, { sort: { by: 'priority' } }])),
    // Off: what rules do comes when they get to it, and a history is the same each time.
    () =>
      make('automation-rules', {
        ...maybe({ name: text() }),
        trigger: random.pick<unknown>(['message.received', { type: 'in_status_for', seconds: 60, status: 'open' }]),
        conditions: random.pick<unknown>([[], { any: [{ not: { field: 'visitor.name', operator: 'contains', value: text() } }] }]),
        actions: [{ type: 'reply', message: text() }],
        enabled: false,
      }),
    () =>
      send('PUT', `/automation-rules/${any(made['automation-rules'])}`, random.pick<object>([{ name: null }, { order: random.int(3) }])),
    () => make('api-keys', { name: text(), role: random.pick(['agent', 'auditor', 'analyst']) }),
    () =>
      send(
        'DELETE',
        `/${random.pick(['visitors', 'companies', 'inboxes', 'agents', 'teams', 'api-keys', 'canned-responses', 'views', 'automation-rules'])}/${any(Object.values(made).flat())}`,
      ),
    () => Promise.resolve(api.clock.advance(random.pick([60_000, 60 * 60_000, 2 * DAY]))),
  ];
  // Something of each kind first, so that short histories have it all.
  for (const first of seldom) await first();
  for (let i = 0; i < commands; i++) await random.pick(random.int(4) === 0 ? seldom : often)();
  return made;
}
