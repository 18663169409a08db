import { randomUUID } from 'node:crypto';
import { encode, type Decided } from '../../src/commands/encoding.js';
import {
  addNote,
  addTags,
  assign,
  type Author,
  changeInbox,
  changePriority,
  type Conversation,
  conversationAggregate,
  type ConversationEvent,
  type Decision,
  initialConversation,
  open,
  PRIORITIES,
  rate,
  receive,
  removeTag,
  reply,
  setStatus,
  snooze,
} from '../../src/conversations/conversation.js';
import { ThreadlogError } from '../../src/errors.js';
import type { Actor, Recorded } from '../../src/event-store/aggregate.js';
import { type NewEvent, streamName } from '../../src/event-store/event-store.js';
import { randomIds } from '../../src/ids.js';
import type { Interval, WorkingHours } from '../../src/inboxes/inbox.js';
import type { TestApi } from '../support/api.js';
import type { SeededRandom } from '../support/seeded-random.js';

/*
 * Random histories of many conversations in the past, decided by the domain's own decisions and appended as they are: thousands of them in
 * seconds, with clocks that change, midnights, working hours that change, and everything that can happen to a conversation.
 */

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

export interface RandomHistory {
  readonly inboxes: readonly string[];
  readonly agents: readonly string[];
  readonly teams: readonly string[];
}

const HOURS: readonly (WorkingHours | null)[] = [
  null,
  week('Europe/Berlin', [
    ['09:00', '12:30'],
    ['13:30', '18:00'],
  ]),
  week('America/New_York', [['08:15', '16:45']]),
  week('Australia/Lord_Howe', [
    ['00:00', '02:15'],
    ['22:00', '24:00'],
  ]),
];

function week(timezone: string, day: readonly Interval[]): WorkingHours {
  return { timezone, schedule: { monday: day, tuesday: day, thursday: day, friday: day.slice(0, 1), sunday: day } };
}

interface One {
  readonly id: string;
  state: Conversation;
  revision: number;
  hash: string;
  at: number;
}

/**
 * @param from when the first conversation is opened at the earliest (ms)
 * @param days over which conversations are opened
 */
export async function writeRandomHistory(
  api: TestApi,
  random: SeededRandom,
  { conversations, from, days }: { readonly conversations: number; readonly from: number; readonly days: number },
): Promise<RandomHistory> {
  const { store } = api.backend;
  const inboxes: string[] = [];
  const agents: string[] = [];
  const teams: string[] = [];
  const made = async (path: string, body: object) => (await api.expect(201, 'POST', path, { body })).body.data.id as string;
  for (let i = 0; i < 3; i++) inboxes.push(await made('/inboxes', { name: `Inbox ${i}`, workingHours: random.pick(HOURS) }));
  for (let i = 0; i < 4; i++) agents.push(await made('/agents', { name: `Agent ${i}` }));
  for (let i = 0; i < 2; i++) teams.push(await made('/teams', { name: `Team ${i}`, agentIds: [] }));

  const all: One[] = [];
  for (let i = 0; i < conversations; i++)
    all.push({
      id: randomUUID(),
      state: initialConversation as Conversation,
      revision: -1,
      hash: '',
      at: from + random.int(days * DAY),
    });

  const agent = (): Author => ({ type: 'agent', id: random.pick(agents), name: 'Name' });
  const person = (): Author => (random.int(4) === 0 ? { type: 'apiKey', id: 'key-1', name: 'Key' } : agent());
  const message = () => ({ messageId: randomUUID(), contentType: 'text' as const });
  const tag = () => random.pick(['billing', 'vip', 'späti', '=1+1']);
  const status = () => random.pick(['open', 'pending', 'resolved', 'closed'] as const);
  const byPerson = ({ type, id }: Author): Actor => ({ type: type === 'automation' ? 'automation' : type, id });
  const visitor: Actor = { type: 'visitor', id: 'v' };
  const robot: Author = { type: 'automation', id: 'rule-1', name: 'Rule' };

  const step = (one: One): { decision: Decision; actor: Actor } => {
    const who = person();
    const actor = byPerson(who);
    const { state } = one;
    if (!state.exists)
      return {
        decision: open({ visitorId: 'v', inboxId: random.pick(inboxes), channel: 'api', priority: random.pick(PRIORITIES) }),
        actor,
      };
    switch (random.int(19)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return { decision: receive(message()), actor: visitor };
      case 4:
      case 5:
        return { decision: reply(message(), who), actor };
      case 6:
        return { decision: reply(message(), who, status()), actor };
      case 7:
        return { decision: reply(message(), robot), actor: byPerson(robot) };
      case 8:
        return { decision: addNote(message(), who), actor };
      case 9:
        return { decision: setStatus(random.pick(['open', 'pending', 'resolved'] as const), 'agent'), actor };
      case 10:
        return { decision: setStatus('resolved', 'automation'), actor: byPerson(robot) };
      case 11:
        return { decision: random.int(3) === 0 ? setStatus('closed', 'agent') : setStatus('open', 'agent'), actor };
      case 12:
        return { decision: snooze(random.pick(['next_reply', new Date(one.at + 300 * DAY).toISOString()]), one.at), actor };
      case 13:
        return {
          decision: assign(
            random.pick([
              null,
              { id: random.pick(agents), type: 'agent', name: 'Name' },
              { id: random.pick(teams), type: 'team', name: 'Team' },
            ]),
          ),
          actor,
        };
      case 14:
        return { decision: assign(undefined, random.pick([null, { id: random.pick(teams), name: 'Team' }])), actor };
      case 15:
        return { decision: random.int(3) === 0 ? removeTag(tag()) : addTags([tag(), tag()]), actor };
      case 16:
        return { decision: changePriority(random.pick(PRIORITIES)), actor };
      case 17:
        return { decision: changeInbox(random.pick(inboxes)), actor };
      default:
        return { decision: rate(1 + random.int(5)), actor: visitor };
    }
  };

  const append = async (one: One, steps: number) => {
    const stream = streamName('conversation', api.organizationId, one.id);
    const expected = one.revision === -1 ? 'none' : one.revision;
    const stored: NewEvent[] = [];
    for (let i = 0; i < steps; i++) {
      // Most things happen soon; some days later, and some in the same millisecond.
      one.at += random.pick([0, random.int(5 * MINUTE), random.int(5 * 60 * MINUTE), random.int(3 * DAY)]);
      const { decision, actor } = step(one);
      let events: readonly Decided<ConversationEvent>[];
      try {
        events = decision(one.state);
      } catch (error) {
        if (error instanceof ThreadlogError) continue;
        throw error;
      }
      if (events.length === 0) continue;
      const before = { revision: one.revision, hash: one.hash, occurredAt: one.state.updatedAt };
      const context = {
        organizationId: api.organizationId,
        actor,
        commandId: randomUUID(),
        requestHash: '',
        correlationId: randomUUID(),
        imported: true as const,
      };
      const encoded = encode(conversationAggregate, stream, before, context as never, events, one.at, randomIds);
      for (const event of encoded.recorded) one.state = conversationAggregate.evolve(one.state, event as Recorded<ConversationEvent>);
      stored.push(...encoded.stored);
      one.revision += encoded.stored.length;
      one.hash = encoded.hash;
    }
    if (stored.length === 0) return;
    const { outcome } = await store.append(stream, expected, stored, AbortSignal.timeout(10_000));
    if (outcome !== 'appended') throw new Error('somebody else writes the history');
  };

  // Streams take turns, and settings change in between.
  for (let round = 0; round < 6; round++) {
    for (let at = 0; at < all.length; at += 64) await Promise.all(all.slice(at, at + 64).map((one) => append(one, random.int(7))));
    await api.expect(200, 'PUT', `/inboxes/${random.pick(inboxes)}`, { body: { workingHours: random.pick(HOURS) } });
    if (round === 2) await api.expect(200, 'PUT', `/agents/${agents[0]}`, { body: { name: 'Renamed' } });
  }
  return { inboxes, agents, teams };
}
