import { sql } from 'kysely';
import { eventsTable } from '../../src/audit/events.table.js';
import { conversationAggregate, open as openConversation } from '../../src/conversations/conversation.js';
import { PAUSES } from '../../src/webhooks/retry-schedule.js';
import { conversationMessageSchema, disabledMessageSchema, pingMessageSchema } from '../../src/webhooks/webhook.messages.js';
import { streamName } from '../../src/event-store/event-store.js';
import { ERASED } from '../../src/security/sealing.js';
import { VisitorKeys } from '../../src/security/visitor-keys.js';
import { DeliveryReader } from '../../src/webhooks/delivery.reader.js';
import { webhookAggregate } from '../../src/webhooks/webhook.js';
import { Replays } from '../../src/webhooks/webhook.replays.js';
import { newWebhookSecret, WebhookSecrets } from '../../src/webhooks/webhook.secrets.js';
import { startApi, type TestApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';
import { type Received, type Receiver, startReceiver } from '../support/receiver.js';

let api: TestApi;
let receiver: Receiver;
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

beforeAll(async () => {
  api = await startApi({ environment: { WEBHOOK_ALLOWED_NETWORKS: '127.0.0.1/32' } });
  receiver = await startReceiver();
});
afterAll(async () => {
  await api?.stop();
  await receiver?.stop();
});

let count = 0;
interface Made {
  readonly id: string;
  readonly secret: string;
  /** What came to this endpoint alone. */
  got(): Received[];
  deliveries(query?: string): Promise<Record<string, unknown>[]>;
}

async function webhook(body: object = {}, key = api.adminKey): Promise<Made> {
  const path = `/hook-${++count}`;
  const made = await api.expect(201, 'POST', '/webhooks', { key, body: { url: `${receiver.url}${path}`, events: ['*'], ...body } });
  const { id, secret } = made.body.data as { id: string; secret: string };
  return {
    id,
    secret,
    got: () => receiver.got.filter((one) => one.path === path),
    deliveries: async (query = '') => (await api.expect(200, 'GET', `/webhooks/${id}/deliveries${query}`, { key })).body.data,
  };
}
const remove = ({ id }: Made) => api.expect(204, 'DELETE', `/webhooks/${id}`);

async function conversation(body: object = {}): Promise<string> {
  return (await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'Ada' }, message: 'Hi', ...body } })).body.data.id;
}
const namesOf = (got: readonly Received[]) => got.map(({ body }) => body.event as string);
const answerAlways = (status: number, headers: Record<string, string> = {}) =>
  receiver.answer((_, response) => void response.writeHead(status, headers).end('no'));
const answerWell = () => receiver.answer((_, response) => void response.writeHead(200).end('ok'));
const statusOf = async (hook: Made, event: string) => (await hook.deliveries()).find((one) => one['event'] === event)?.['status'];

describe('a webhook', () => {
  it('is told of everything in order, signed, and each is in the delivery log', async () => {
    const hook = await webhook();
    const id = await conversation();
    await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'Hello', status: 'resolved' } });
    await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'Between us', type: 'note' } });
    await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['vip'] } });
    await eventually(() => hook.got().length >= 8);
    expect(namesOf(hook.got())).toEqual([
      'conversation.created',
      'message.received',
      'message.sent',
      'conversation.resolved',
      'conversation.updated',
      'note.added',
      'conversation.tagged',
      'conversation.updated',
    ]);
    for (const one of hook.got()) {
      expect(receiver.verified(one, hook.secret, api.clock.now())).toEqual(one.body);
      expect(conversationMessageSchema.parse(one.body).conversation.id).toBe(id);
      expect(one.headers['webhook-id']).not.toContain('.');
    }
    const positions = hook.got().map(({ body }) => body.position as string);
    expect(positions).toEqual([...positions].sort());
    const deliveries = await eventually(async () => {
      const all = await hook.deliveries();
      return all.every(({ status }) => status === 'delivered') ? all : undefined;
    });
    expect(deliveries.map((one) => one['id'])).toEqual(
      hook
        .got()
        .map(({ headers }) => headers['webhook-id'])
        .reverse(),
    );
    const one = await api.expect(200, 'GET', `/webhooks/${hook.id}/deliveries/${String(deliveries[0]?.['id'])}`);
    expect(one.body.data).toMatchObject({
      event: 'conversation.updated',
      conversationId: id,
      status: 'delivered',
      lastStatus: 200,
      attempts: [{ status: 200, response: 'ok' }],
    });
    await remove(hook);
  });

  it('works as the document has it', async () => {
    const events = ['conversation.created', 'conversation.assigned', 'conversation.resolved', 'message.received'];
    const made = await api.expect(201, 'POST', '/webhooks', { body: { url: 'https://your-server.com/webhook', events } });
    expect(made.body.data.secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
    expect((await api.expect(200, 'GET', `/webhooks/${made.body.data.id}`)).text).not.toContain('whsec_');
    await api.expect(204, 'DELETE', `/webhooks/${made.body.data.id}`);
  });

  it('is told only what it asks for, of the conversations that pass its filters as they are after the event', async () => {
    await api.expect(201, 'POST', '/inboxes', { body: { id: 'sales', name: 'Sales' } });
    const some = await webhook({ events: ['message.received', 'conversation.tagged'] });
    const sales = await webhook({ filters: { inboxId: 'sales' } });
    const vip = await webhook({ events: ['message.received', 'conversation.tagged'], filters: { tag: 'vip' } });
    const id = await conversation();
    await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['vip'] } });
    await api.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message: 'More' } });
    await api.expect(200, 'DELETE', `/conversations/${id}/tags/vip`);
    await api.expect(200, 'PUT', `/conversations/${id}`, { body: { inboxId: 'sales' } });
    const other = await conversation({ inboxId: 'sales' });
    await eventually(() => sales.got().length === 3 && some.got().length === 5 && vip.got().length === 2);
    expect(namesOf(vip.got())).toEqual(['conversation.tagged', 'message.received']);
    expect(sales.got().map(({ body }) => [body.event, body.conversation.id])).toEqual([
      ['conversation.updated', id],
      ['conversation.created', other],
      ['message.received', other],
    ]);
    for (const hook of [some, sales, vip]) await remove(hook);
  });

  it('hears of other organizations nothing, and of its owner only unless it asks not to', async () => {
    const other = await api.otherOrganization();
    const theirs = await webhook({}, other.adminKey);
    const own = await webhook({ ignoreOwnWrites: true });
    const all = await webhook();
    const id = await conversation();
    const key = await api.keyFor('agent');
    await api.expect(201, 'POST', `/conversations/${id}/reply`, { key, body: { message: 'From another key' } });
    await eventually(() => all.got().length === 3 && own.got().length === 1);
    expect(namesOf(own.got())).toEqual(['message.sent']);
    expect(theirs.got()).toEqual([]);
    await api.expect(404, 'GET', `/webhooks/${theirs.id}/deliveries`);
    const [delivery] = await all.deliveries();
    await api.expect(404, 'GET', `/webhooks/${own.id}/deliveries/${String(delivery?.['id'])}`);
    await api.expect(404, 'GET', `/webhooks/${all.id}/deliveries/${String(delivery?.['id'])}`, { key: other.adminKey });
    await api.expect(404, 'POST', `/webhooks/${all.id}/deliveries/${String(delivery?.['id'])}/resend`, { key: other.adminKey });
    for (const hook of [own, all]) await remove(hook);
  });

  it('is signed by both secrets while they overlap, and then by the new one alone', async () => {
    const hook = await webhook({ events: ['conversation.created'] });
    const rotated = await api.expect(200, 'POST', `/webhooks/${hook.id}/rotate-secret`, { body: { overlapHours: 2 } });
    const secret = rotated.body.data.secret as string;
    expect(secret).not.toBe(hook.secret);
    // Senders know of a new secret within a second.
    const first = await eventually(async () => {
      await conversation();
      return hook.got().find(({ headers }) => String(headers['webhook-signature']).includes(' '));
    });
    for (const one of [hook.secret, secret]) expect(receiver.verified(first, one, api.clock.now())).toEqual(first.body);
    await eventually(async () => (await hook.deliveries('?status=pending')).length === 0);
    api.clock.advance(2 * HOUR + 1_000);
    const told = hook.got().length;
    await conversation();
    const second = await eventually(() => hook.got()[told]);
    expect(receiver.verified(second, secret, api.clock.now())).toEqual(second.body);
    expect(() => receiver.verified(second, hook.secret, api.clock.now())).toThrow();
    await remove(hook);
  });

  it('is signed so that every message verifies while its secret is rotated under load, and by none of the earlier ones afterwards', async () => {
    const hook = await webhook({ events: ['conversation.created'] });
    const rotate = async () =>
      (await api.expect(200, 'POST', `/webhooks/${hook.id}/rotate-secret`, { body: { overlapHours: 1 } })).body.data.secret as string;
    let writing = true;
    const load = Promise.all(
      Array.from({ length: 4 }, async () => {
        while (writing) await conversation();
      }),
    );
    let rotated: readonly string[];
    let last: Received;
    try {
      await eventually(() => hook.got().length > 5);
      rotated = await Promise.all([rotate(), rotate()]);
      last = await eventually(() => hook.got().find(({ headers }) => String(headers['webhook-signature']).split(' ').length === 3));
    } finally {
      writing = false;
      await load;
    }
    await eventually(async () => (await hook.deliveries('?status=pending')).length === 0);
    const verifies = (one: Received, secret: string) => {
      try {
        receiver.verified(one, secret, api.clock.now());
        return true;
      } catch {
        return false;
      }
    };
    for (const one of hook.got()) expect(verifies(one, hook.secret)).toBe(true);
    for (const secret of rotated) expect(verifies(last, secret)).toBe(true);
    api.clock.advance(HOUR + 1_000);
    const told = hook.got().length;
    await conversation();
    const after = await eventually(() => hook.got()[told]);
    expect([hook.secret, ...rotated].filter((secret) => verifies(after, secret))).toHaveLength(1);

    // The writes of two rotations, in the order opposite to that of their events.
    const secrets = new WebhookSecrets(api.backend.database, api.backend.masterKey);
    const [now, id] = [api.clock.now(), `raced-${hook.id}`];
    const made = [0, 1, 2].map((revision) => ({
      id: api.backend.ids.next(),
      secret: newWebhookSecret(),
      revision,
      earlierUntil: now + revision * HOUR,
    }));
    for (const at of [0, 2, 1]) await secrets.add(api.organizationId, id, made[at] as (typeof made)[number]);
    const untils = async (at: number) =>
      (await secrets.valid(api.organizationId, id, at)).map(({ until }) => (until === Infinity ? until : until - now));
    expect(await untils(now)).toEqual([Infinity, 2 * HOUR, HOUR]);
    expect(await untils(now + HOUR)).toEqual([Infinity, 2 * HOUR]);
    await secrets.removeEnded(now + 2 * HOUR);
    expect(await untils(now)).toEqual([Infinity]);
    await secrets.destroy(api.organizationId, id);
    await remove(hook);
  });

  it('sends what the documented verifier takes, and what it refuses with any change', async () => {
    const hook = await webhook({ events: ['conversation.created'] });
    await conversation();
    const one = await eventually(() => hook.got()[0]);
    const now = api.clock.now();
    const refused = (change: { text?: string; headers?: Record<string, string>; secret?: string; at?: number }) => {
      const { text = one.text, headers = {}, secret = hook.secret, at = now } = change;
      expect(() => receiver.verified({ ...one, text, headers: { ...one.headers, ...headers } }, secret, at)).toThrow();
    };
    expect(receiver.verified(one, hook.secret, now)).toEqual(one.body);
    const signature = String(one.headers['webhook-signature']);
    const changed = (at: number) => `${signature.slice(0, at)}${signature[at] === 'A' ? 'B' : 'A'}${signature.slice(at + 1)}`;
    for (const value of ['', 'v1,', 'v1', 'v2,' + signature.slice(3), signature.slice(0, -4), `${signature}AAAA`, changed(3), changed(20)])
      refused({ headers: { 'webhook-signature': value } });
    refused({ text: one.text.replace('conversation.created', 'conversation.createD') });
    refused({ text: `${one.text} ` });
    refused({ headers: { 'webhook-id': 'another' } });
    refused({ headers: { 'webhook-timestamp': String(Number(one.headers['webhook-timestamp']) + 1) } });
    for (const minutes of [-6, 6]) refused({ at: now + minutes * 60_000 });
    refused({ secret: newWebhookSecret() });
    await remove(hook);
  });

  it('is refused when it leads inside, in every spelling, when it is made and when it is changed', async () => {
    const hook = await webhook();
    const inside = ['10.0.0.1', '127.0.0.2', '127.2', '2130706434', '0x7f.2', '0177.0.0.2', '[::1]', '[::ffff:10.0.0.1]', '0.0.0.0'];
    const more = ['169.254.169.254', '[fd00:ec2::254]', '100.100.100.200', '192.168.1.1', '[64:ff9b::7f00:2]', '[fe80::1]', '224.0.0.1'];
    for (const host of [...inside, ...more])
      for (const [method, path, body] of [
        ['POST', '/webhooks', { events: ['*'] }],
        ['PUT', `/webhooks/${hook.id}`, {}],
      ] as const) {
        const refused = await api.call(method, path, { body: { url: `https://${host}/`, ...body } });
        expect([host, refused.status]).toEqual([host, 400]);
        expect(refused.body.errors).toMatchObject([{ field: 'url' }]);
      }
    await remove(hook);
  });

  it('gets what failed again until it takes it: after errors, a missing page, a redirect and a reset', async () => {
    const hook = await webhook({ events: ['conversation.created'] });
    const elsewhere = `/elsewhere-${hook.id}`;
    const answers = [500, 404, 302, 'reset', 200] as const;
    let sent = 0;
    receiver.answer(({ path }, response) => {
      const answer = path === elsewhere ? 200 : (answers[sent++] ?? 200);
      if (answer === 'reset') response.socket?.resetAndDestroy();
      else response.writeHead(answer, answer === 302 ? { location: `${receiver.url}${elsewhere}` } : {}).end();
    });
    await conversation();
    for (const [attempt] of answers.entries()) {
      await eventually(() => sent === attempt + 1);
      await eventually(async () => (await hook.deliveries('?status=failed,delivered'))[0]?.['attempts'] === attempt + 1);
      api.clock.advance((PAUSES[attempt] ?? 0) * 1.2);
    }
    const [delivery] = await hook.deliveries();
    expect(delivery).toMatchObject({ status: 'delivered', attempts: 5, lastStatus: 200 });
    const { attempts } = (await api.expect(200, 'GET', `/webhooks/${hook.id}/deliveries/${String(delivery?.['id'])}`)).body.data;
    expect(attempts.map(({ status, error }: { status?: number; error?: string }) => status ?? error)).toEqual([
      500,
      404,
      302,
      expect.stringContaining('the connection failed'),
      200,
    ]);
    expect(receiver.got.filter(({ path }) => path === elsewhere)).toEqual([]);
    answerWell();
    await remove(hook);
  });

  it('is sent once more what is asked for again while it is being sent', async () => {
    const hook = await webhook({ events: ['conversation.created'] });
    const held: (() => void)[] = [];
    receiver.answer((_, response) => void held.push(() => response.writeHead(200).end()));
    await conversation();
    await eventually(() => held.length === 1);
    const [delivery] = await hook.deliveries();
    await api.expect(202, 'POST', `/webhooks/${hook.id}/deliveries/${String(delivery?.['id'])}/resend`);
    held[0]?.();
    await eventually(() => held.length === 2);
    held[1]?.();
    await eventually(async () => (await hook.deliveries('?status=delivered')).length === 1);
    expect(new Set(hook.got().map(({ headers }) => headers['webhook-id']))).toEqual(new Set([delivery?.['id']]));
    answerWell();
    await remove(hook);
  });

  it('is told nothing of what was imported, not even by a replay', async () => {
    const hook = await webhook();
    const { transactor, ids } = api.backend;
    const imported = (id: string) => {
      const commandId = ids.next();
      const importing = { type: 'system', id: 'import' } as const;
      return transactor.transact(
        conversationAggregate,
        id,
        { organizationId: api.organizationId, actor: importing, commandId, requestHash: '', correlationId: commandId, imported: true },
        openConversation({ visitorId: 'nobody', inboxId: 'inbox-main', channel: 'import' }),
      );
    };
    const before = await api.backend.store.head();
    await imported(`imported-${hook.id}`);
    const id = await conversation();
    await eventually(() => hook.got().length === 2);
    expect(hook.got().map(({ body }) => body.conversation.id)).toEqual([id, id]);
    expect(await hook.deliveries()).toHaveLength(2);
    const dry = await api.expect(202, 'POST', `/webhooks/${hook.id}/replay`, { body: { after: before, dryRun: true } });
    expect(dry.body.data).toEqual({ count: 2 });
    await remove(hook);
  });

  it('holds back the later events of a conversation until the earlier one arrived or was given up, and no other', async () => {
    const hook = await webhook({ events: ['message.received'] });
    const id = await conversation();
    await eventually(() => hook.got().length === 1);
    receiver.answer(({ body }, response) => void response.writeHead(body.conversation.id === id ? 500 : 200).end());
    await api.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message: 'Second' } });
    await api.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message: 'Third' } });
    await eventually(async () => (await hook.deliveries('?status=failed')).length === 1);
    const other = await conversation();
    await eventually(() => hook.got().some(({ body }) => body.conversation.id === other));
    // Every pause of the schedule, then no more.
    for (const [i, pause] of PAUSES.entries()) {
      const tries = () => hook.got().filter(({ body }) => body.message.content === 'Second');
      expect(tries()).toHaveLength(i + 1);
      // The clock of the test runs on, and so does a busy machine.
      api.clock.advance(pause * 0.89 - 4_000);
      await conversation();
      expect(tries()).toHaveLength(i + 1);
      api.clock.advance(pause * 0.22 + 4_000);
      await eventually(async () => tries().length === i + 2);
      const ids = new Set(tries().map(({ headers }) => headers['webhook-id']));
      expect(ids.size).toBe(1);
      // The next pause begins when the attempt has been recorded.
      await eventually(async () =>
        (await hook.deliveries('?status=failed,given_up')).some((one) => ids.has(String(one['id'])) && one['attempts'] === i + 2),
      );
    }
    const [given] = await eventually(async () => {
      const all = await hook.deliveries('?status=given_up');
      return all.length === 1 ? all : undefined;
    });
    expect(given).toMatchObject({ attempts: 8, lastStatus: 500 });
    await eventually(() => hook.got().some(({ body }) => body.message.content === 'Third'));
    answerWell();

    // Sent again by hand: the same id.
    const resent = await api.expect(202, 'POST', `/webhooks/${hook.id}/deliveries/${String(given?.['id'])}/resend`);
    expect(resent.body.data).toMatchObject({ id: given?.['id'], status: 'pending' });
    await eventually(async () => (await hook.deliveries('?status=given_up')).length === 0);
    const last = hook.got().filter(({ body }) => body.message.content === 'Second');
    expect(last).toHaveLength(9);
    expect(last.at(-1)?.headers['webhook-id']).toBe(given?.['id']);
    await remove(hook);
  });

  it('is asked again when it says so, but not sooner than the schedule and not later than ten hours', async () => {
    const hook = await webhook({ events: ['conversation.created'] });
    const nextIn = async () => {
      const [one] = await hook.deliveries('?status=failed');
      return one === undefined ? undefined : Date.parse(String(one['nextAttemptAt'])) - api.clock.now();
    };
    for (const [value, least, most] of [
      ['120', 115_000, 121_000],
      ['1', 0, 6_000],
      ['999999999', 9.9 * HOUR, 10.1 * HOUR],
      ['soon', 0, 6_000],
    ] as const) {
      answerAlways(429, { 'retry-after': value });
      await conversation();
      const ms = await eventually(nextIn);
      expect([value, ms > least, ms < most]).toEqual([value, true, true]);
      answerWell();
      api.clock.advance(11 * HOUR);
      await eventually(async () => (await hook.deliveries('?status=failed')).length === 0);
    }
    await remove(hook);
  });

  it('is disabled by 410 at once: its other deliveries are given up, others are told, and it can be enabled', async () => {
    const told = await webhook({ events: ['webhook.disabled'] });
    const hook = await webhook({ events: ['message.received'] });
    receiver.answer(({ body }, response) => void response.writeHead(body.event === 'webhook.disabled' ? 200 : 410).end());
    const id = await conversation();
    await api.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message: 'Second' } });
    const message = await eventually(() => told.got()[0]);
    expect(disabledMessageSchema.parse(receiver.verified(message, told.secret, api.clock.now()))).toMatchObject({
      webhook: { id: hook.id, origin: receiver.url },
      reason: 'gone',
    });
    // The path may hold a token.
    expect(message.text).not.toContain('/hook-');
    expect((await api.expect(200, 'GET', `/webhooks/${hook.id}`)).body.data).toMatchObject({
      enabled: false,
      disabled: { reason: 'gone' },
    });
    await eventually(async () => (await hook.deliveries()).every(({ status }) => status === 'given_up'));
    answerWell();
    const sent = hook.got().length;
    await conversation();
    const [delivery] = await hook.deliveries();
    for (const path of [`deliveries/${String(delivery?.['id'])}/resend`, 'replay']) {
      const refused = await api.expect(409, 'POST', `/webhooks/${hook.id}/${path}`, path === 'replay' ? { body: { after: 'start' } } : {});
      expect(refused.body.code).toBe('webhook_disabled');
    }
    // A test goes there all the same.
    const ping = await api.expect(202, 'POST', `/webhooks/${hook.id}/ping`);
    await eventually(() => hook.got().length === sent + 1);
    expect(pingMessageSchema.parse(receiver.verified(hook.got().at(-1) as Received, hook.secret, api.clock.now())).id).toBe(
      ping.body.data.id,
    );

    const enabled = await api.expect(200, 'POST', `/webhooks/${hook.id}/enable`);
    expect(enabled.body.data).toMatchObject({ enabled: true, disabled: null });
    await conversation();
    await eventually(() => hook.got().length === sent + 2);
    const events = await api.expect(200, 'GET', `/webhooks/${hook.id}/events`);
    expect(events.body.data.map(({ type }: { type: string }) => type)).toEqual(['WebhookCreated', 'WebhookDisabled', 'WebhookEnabled']);
    for (const one of [told, hook]) await remove(one);
  });

  it('is disabled when every attempt has failed for five days, once, and what it missed can be replayed', async () => {
    const told = await webhook({ events: ['webhook.disabled'] });
    const hook = await webhook({ events: ['conversation.created'] });
    receiver.answer(({ body }, response) => void response.writeHead(body.event === 'webhook.disabled' ? 200 : 503).end());
    const since = new Date(api.clock.now()).toISOString();
    const first = await conversation();
    await eventually(async () => (await statusOf(hook, 'conversation.created')) === 'failed');
    api.clock.advance(4.9 * DAY);
    const second = await conversation();
    await eventually(async () => (await hook.deliveries('?status=failed')).length === 2);
    expect(told.got()).toEqual([]);
    api.clock.advance(0.2 * DAY);
    await eventually(() => told.got().length === 1);
    expect(told.got()[0]?.body).toMatchObject({ reason: 'failing', webhook: { id: hook.id } });
    await eventually(async () => (await hook.deliveries()).every(({ status }) => status === 'given_up'));
    const third = await conversation();
    answerWell();
    await api.expect(200, 'POST', `/webhooks/${hook.id}/enable`);

    const before = hook.got().length;
    const dry = await api.expect(202, 'POST', `/webhooks/${hook.id}/replay`, { body: { from: since, dryRun: true } });
    expect(dry.body.data).toEqual({ count: 3 });
    const replayed = await api.expect(202, 'POST', `/webhooks/${hook.id}/replay`, { body: { from: since } });
    expect(replayed.body.data).toEqual({ count: 3 });
    await eventually(() => hook.got().length === before + 3);
    const again = hook
      .got()
      .slice(before)
      .map(({ body }) => body.conversation.id as string);
    expect(new Set(again)).toEqual(new Set([first, second, third]));
    expect(told.got()).toHaveLength(1);
    for (const one of [told, hook]) await remove(one);
  });

  it('gets a replay from a position on, of some events, up to an instant', async () => {
    const id = await conversation();
    await api.expect(200, 'PUT', `/conversations/${id}`, { body: { status: 'resolved' } });
    await api.expect(200, 'PUT', `/conversations/${id}`, { body: { status: 'closed' } });
    const hook = await webhook();
    const counted = async (body: object) =>
      (await api.expect(202, 'POST', `/webhooks/${hook.id}/replay`, { body: { dryRun: true, ...body } })).body.data.count as number;
    const events = (await api.expect(200, 'GET', `/conversations/${id}/events`)).body.data as { position: string }[];
    const opened = events[0]?.position ?? '';
    // What comes after its opening: the message, and two public events for each status.
    expect(await counted({ after: opened })).toBe(5);
    expect(await counted({ after: `${events[2]?.position ?? ''}.1` })).toBe(3);
    expect(await counted({ after: opened, events: ['conversation.updated'] })).toBe(2);
    expect(await counted({ after: opened, to: '2020-01-01T00:00:00Z' })).toBe(0);
    expect(await counted({ after: await api.backend.store.head() })).toBe(0);
    for (const body of [
      {},
      { after: opened, from: '2020-01-01T00:00:00Z' },
      { after: '9'.repeat(19) },
      { after: 'x' },
      { after: opened, events: ['webhook.ping'] },
    ])
      await api.expect(400, 'POST', `/webhooks/${hook.id}/replay`, { body });
    await api.expect(202, 'POST', `/webhooks/${hook.id}/replay`, { body: { after: opened } });
    await eventually(() => hook.got().length === 5);
    expect(namesOf(hook.got())).toEqual([
      'message.received',
      'conversation.resolved',
      'conversation.updated',
      'conversation.closed',
      'conversation.updated',
    ]);
    await remove(hook);
  });

  it('lists deliveries by status, event, conversation and time, page by page', async () => {
    const hook = await webhook({ events: ['conversation.created', 'message.received'] });
    const ids = [await conversation(), await conversation()];
    await eventually(async () => (await hook.deliveries('?status=delivered')).length === 4);
    expect(await hook.deliveries(`?conversationId=${ids[0] ?? ''}`)).toHaveLength(2);
    expect(await hook.deliveries('?event=message.received')).toHaveLength(2);
    expect(await hook.deliveries('?status=failed,given_up')).toEqual([]);
    expect(await hook.deliveries(`?to=${new Date(api.clock.now() - HOUR).toISOString()}`)).toEqual([]);
    expect(await hook.deliveries(`?from=${new Date(api.clock.now() - HOUR).toISOString()}`)).toHaveLength(4);
    const all = await hook.deliveries();
    const paged: unknown[] = [];
    for (let cursor: string | null = ''; cursor !== null;) {
      const page = await api.expect(200, 'GET', `/webhooks/${hook.id}/deliveries?limit=3${cursor === '' ? '' : `&cursor=${cursor}`}`);
      paged.push(...(page.body.data as unknown[]));
      cursor = page.body.meta.nextCursor as string | null;
    }
    expect(paged).toEqual(all);
    for (const query of ['?status=lost', '?event=conversation.deleted', '?from=yesterday', '?limit=101', '?cursor=made-up.x', '?page=2'])
      await api.expect(400, 'GET', `/webhooks/${hook.id}/deliveries${query}`);
    await remove(hook);
  });

  it('is sent nothing once it is deleted', async () => {
    const hook = await webhook({ events: ['message.received'] });
    answerAlways(500);
    const id = await conversation();
    await eventually(async () => (await hook.deliveries('?status=failed')).length === 1);
    await remove(hook);
    await eventually(async () => (await hook.deliveries('?status=given_up')).length === 1);
    answerWell();
    api.clock.advance(DAY);
    await api.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message: 'x' } });
    for (const action of ['enable', 'ping', 'rotate-secret'])
      expect(
        (await api.expect(409, 'POST', `/webhooks/${hook.id}/${action}`, action === 'rotate-secret' ? { body: {} } : {})).body.code,
      ).toBe('resource_archived');
    const { rows } = await sql<{ left: number }>`
      select count(*)::int as left from keep.webhook_secrets where webhook_id = ${hook.id}`.execute(api.backend.database);
    expect(rows[0]?.left).toBe(0);
    expect(hook.got()).toHaveLength(1);
  });

  it('leaves no secret and no content where it must not be', async () => {
    const hook = await webhook();
    // It answers with what it was sent.
    const echo = (status: number) => receiver.answer(({ text }, response) => void response.writeHead(status).end(text));
    echo(200);
    await conversation({ message: 'canary-in-a-message', visitor: { id: 'canary', name: 'canary-of-a-name' } });
    await eventually(async () => (await hook.deliveries('?status=delivered')).length === 2);
    echo(500);
    await conversation({ message: 'canary-in-a-message' });
    await eventually(async () => (await hook.deliveries('?status=failed')).length === 1);
    answerWell();
    const responseOf = async (status: string) => {
      const [one] = await hook.deliveries(`?status=${status}`);
      const { body } = await api.expect(200, 'GET', `/webhooks/${hook.id}/deliveries/${String(one?.['id'])}`);
      return body.data.attempts[0].response as string;
    };
    for (const status of ['delivered', 'failed']) expect(await responseOf(status)).toContain('"conversation":');
    const kept = await sql<{ text: string }>`
      select d::text as text from keep.webhook_deliveries d union all select j::text from keep.jobs j
      union all select r.state::text from keep.reactors r where state is not null`.execute(api.backend.database);
    const log: string[] = [];
    for await (const batch of api.backend.store.feed('start', { maxEvents: 10_000, signal: AbortSignal.timeout(10_000) })) {
      log.push(...batch.events.map(({ data, metadata }) => data + metadata));
      if (batch.caughtUp) break;
    }
    for (const place of [kept.rows.map(({ text }) => text).join('\n'), log.join('\n'), api.logged()])
      for (const secret of ['whsec_', hook.secret.slice(6), 'canary-']) expect(place).not.toContain(secret);
    await sql`update keep.visitor_keys set wrapped = null`.execute(api.backend.database);
    // As any other process, which has no key in memory.
    const reader = new DeliveryReader(
      api.backend.database,
      api.backend.cursors,
      new VisitorKeys(api.backend.database, api.backend.masterKey),
    );
    const [erased] = await hook.deliveries('?status=delivered');
    const row = await reader.one(api.organizationId, hook.id, String(erased?.['id']));
    expect((await reader.attempts(api.organizationId, row))[0]).toMatchObject({ status: 200, response: ERASED });
    await remove(hook);
  });

  it('makes an organization’s limit felt', async () => {
    const { adminKey: key } = await api.otherOrganization();
    const body = { url: `${receiver.url}/many`, events: ['conversation.rated'] };
    const { id } = (await api.expect(201, 'POST', '/webhooks', { key, body })).body.data as { id: string };
    // As many others, each with its secret.
    const { database } = api.backend;
    await sql`
      insert into keep.webhook_secrets select organization_id, 'other ' || n, id, wrapped, revision, earlier_until
      from keep.webhook_secrets cross join generate_series(1, 98) n where webhook_id = ${id}`.execute(database);
    await api.expect(201, 'POST', '/webhooks', { key, body });
    expect((await api.expect(422, 'POST', '/webhooks', { key, body })).body.code).toBe('limit_exceeded');
    await api.expect(204, 'DELETE', `/webhooks/${id}`, { key });
    await api.expect(201, 'POST', '/webhooks', { key, body });
    await sql`delete from keep.webhook_secrets where webhook_id like 'other %'`.execute(database);
  });

  it('is refused another replay while ten of its organization wait, or while too much waits for it', async () => {
    const id = await conversation();
    const hook = await webhook({ url: 'https://no-such-host.invalid/hook' });
    const { database } = api.backend;
    const position = (await api.expect(200, 'GET', `/conversations/${id}/events`)).body.data[0].position as string;
    const replay = async (status: number, key?: string) =>
      await api.expect(status, 'POST', `/webhooks/${hook.id}/replay`, {
        body: { after: position },
        ...(key === undefined ? {} : { headers: { 'idempotency-key': key } }),
      });
    const add = async (jobs: readonly object[]) =>
      await sql`select keep.add_jobs(${JSON.stringify(
        jobs.map((job, n) => ({ key: `held ${n}`, organization_id: api.organizationId, payload: {}, delay_ms: 3_600_000, ...job })),
      )}::jsonb, null)`.execute(database);
    const removeHeld = async () => await sql`delete from keep.jobs where key like 'held %'`.execute(database);

    await add(Array.from({ length: 10 }, () => ({ kind: 'replay-webhook', lane: `replay-webhook ${api.organizationId}` })));
    const refused = await replay(422, 'one-replay');
    expect(refused.body).toMatchObject({ code: 'limit_exceeded', detail: expect.stringContaining('10 replays') as string });
    await removeHeld();
    // A refused request may be asked again under its key.
    await replay(202, 'one-replay');

    await sql`
      insert into keep.jobs (kind, key, receiver, head, organization_id, payload, due_at)
      select 'deliver-webhook', 'held ' || n, ${`${api.organizationId}.${hook.id}`}, true, ${api.organizationId}, '{}', now() + interval '1 hour'
      from generate_series(1, 100001) n`.execute(database);
    expect((await replay(422)).body).toMatchObject({ code: 'limit_exceeded', detail: expect.stringContaining('100000') as string });
    await removeHeld();
    await replay(202);
    await remove(hook);
  });

  it('is replayed nothing once it is deleted, which is no error', async () => {
    const id = await conversation();
    const hook = await webhook();
    const { database } = api.backend;
    const position = (await api.expect(200, 'GET', `/conversations/${id}/events`)).body.data[0].position as string;
    const lane = `replay-webhook ${api.organizationId}`;
    const before = [{ kind: 'replay-webhook', key: 'before', lane, organization_id: api.organizationId, payload: {}, delay_ms: 3_600_000 }];
    await sql`select keep.add_jobs(${JSON.stringify(before)}::jsonb, null)`.execute(database);
    await api.expect(202, 'POST', `/webhooks/${hook.id}/replay`, { body: { after: position } });
    await remove(hook);
    const logged = api.logged().length;
    await sql`select keep.remove_jobs(array['replay-webhook'], array['before'])`.execute(database);
    await eventually(async () => {
      const left = await database.selectFrom('keep.jobs').select('id').where('kind', '=', 'replay-webhook').execute();
      return left.length === 0;
    });
    expect(api.logged().slice(logged)).not.toContain('job given up');
    expect(hook.got()).toEqual([]);
  });

  it('gets a replay from an instant on without a look at what happened long before, by halves', async () => {
    const { organizationId, adminKey: key } = await api.otherOrganization();
    const hook = await webhook({}, key);
    await api.expect(201, 'POST', '/conversations', { key, body: { visitor: {}, message: 'Hi' } });
    await eventually(() => hook.got().length === 2);
    const from = new Date(api.clock.now() - DAY).toISOString();
    // A thousand events a day, up to two days ago.
    const view = api.backend.readModels.view(eventsTable);
    await sql`
      insert into ${view} (organization_id, position, kind, stream_id, revision, event_id, type, data, metadata)
      select organization_id, lpad(day::text, 19, '0') || '-' || lpad(n::text, 19, '0'), kind, stream_id, revision, gen_random_uuid(), type, data,
        regexp_replace(metadata, '"occurredAt":"[^"]*"',
          '"occurredAt":"' || to_char((${from}::timestamptz - (8 - day) * interval '1 day') at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || '"')
      from ${view}, generate_series(1, 6) day, generate_series(1, 1000) n
      where organization_id = ${organizationId} and type = 'MessageReceived'`.execute(api.backend.database);
    const found = await api.backend.transactor.load(webhookAggregate, organizationId, hook.id);
    const through = await api.backend.store.head();
    const replay = async (range: { from?: string; to?: string }) => {
      const seen = { made: 0, looked: 0 };
      if (found === undefined) throw new Error('there is no webhook');
      const parts = api.app.get(Replays).deliveries(organizationId, hook.id, found.state, { after: '', through, ...range }, 'round');
      for await (const { made, looked } of parts) {
        seen.made += made.length;
        seen.looked += looked;
      }
      return seen;
    };
    expect(await replay({})).toEqual({ made: 6_002, looked: 6_002 });
    expect(await replay({ from })).toEqual({ made: 2, looked: 2 });
    const at = (day: number) => new Date(Date.parse(from) - (8 - day) * DAY).toISOString();
    const range = await replay({ from: at(2), to: at(2) });
    expect(range.made).toBe(1_000);
    // The end is known when two thousand later ones have been seen.
    expect(range.looked).toBeLessThanOrEqual(3_500);
    await api.expect(204, 'DELETE', `/webhooks/${hook.id}`, { key });
  });

  it('goes on for others when a conversation cannot be read, and stops when its own settings cannot', async () => {
    const { store, ids, database } = api.backend;
    const hook = await webhook({ events: ['message.received'] });
    const broken = await conversation();
    await eventually(() => hook.got().length === 1);
    const bad = (type: string) => {
      const id = ids.next();
      const facts = { organizationId: api.organizationId, actor: { type: 'system', id: 'test' }, causationDepth: 0, schemaVersion: 1 };
      const metadata = { ...facts, occurredAt: new Date(api.clock.now()).toISOString(), commandId: id, requestHash: '', hash: '' };
      return [{ id, type, data: '{"unreadable":true}', metadata: JSON.stringify({ ...metadata, correlationId: id, causationId: id }) }];
    };
    const streamOf = (kind: string, id: string) => streamName(kind, api.organizationId, id);
    const appended = await store.append(streamOf('conversation', broken), 1, bad('MessageReceived'), AbortSignal.timeout(5_000));
    expect(appended.outcome).toBe('appended');
    await conversation();
    await eventually(() => hook.got().length === 2);
    const { rows } = await sql<{ stream: string }>`select stream from keep.parked where group_name = 'webhooks'`.execute(database);
    expect(rows).toEqual([{ stream: streamOf('conversation', broken) }]);
    await store.append(streamOf('webhook', hook.id), 0, bad('WebhookDisabled'), AbortSignal.timeout(5_000));
    await eventually(async () => {
      const seen = await sql<{ stopped: string | null }>`select stopped from keep.reactors where name = 'webhooks'`.execute(database);
      return seen.rows[0]?.stopped?.includes('does not go on without it');
    });
  });
});
