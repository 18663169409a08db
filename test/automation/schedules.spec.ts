import fc from 'fast-check';
import type { CommandContext } from '../../src/commands/command-context.js';
import { Transactor } from '../../src/commands/transactor.js';
import * as conversation from '../../src/conversations/conversation.js';
import { conversationAggregate, type ConversationEvent, type Decision } from '../../src/conversations/conversation.js';
import { sealMessage } from '../../src/conversations/conversation.sealing.js';
import { decode, type Recorded } from '../../src/event-store/aggregate.js';
import { type EventStore, streamName } from '../../src/event-store/event-store.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import { ThreadlogError } from '../../src/errors.js';
import { randomIds } from '../../src/ids.js';
import { DataKey } from '../../src/security/sealing.js';
import { TestClock } from '../support/test-clock.js';

/*
 * What rules and timers do, against a person who resolves, in every order that a scheduler finds: two processes do each job at the same time,
 * and every read and every append of the log may come before or after every other one.
 */

const STREAM = streamName(conversationAggregate.kind, 'acme', 'c');
const START = Date.UTC(2026, 0, 5, 9);
const key = new DataKey(Buffer.alloc(32, 7));
const message = (text: string) => sealMessage(key, text, { type: 'text', content: text });

/** The store, as a process reaches it: the scheduler decides when each call arrives. */
function scheduled(store: EventStore, scheduler: fc.Scheduler): EventStore {
  const arrives = (what: string) => scheduler.schedule(Promise.resolve(), what);
  return {
    log: store.log,
    async append(...given) {
      await arrives('append');
      return store.append(...given);
    },
    async *read(...given) {
      await arrives('read');
      yield* store.read(...given);
    },
    appendInOrder: (...given) => store.appendInOrder(...given),
    head: () => store.head(),
    feed: (...given) => store.feed(...given),
    close: () => store.close(),
  };
}

const context = (commandId: string, type: CommandContext['actor']['type'], attempt = 1): CommandContext => ({
  organizationId: 'acme',
  actor: { type, id: 'x' },
  commandId,
  requestHash: '',
  correlationId: commandId,
  keyId: 'k',
  ...(attempt > 1 ? { thorough: true } : {}),
});

type Outcome = readonly string[] | string;

/** A conversation that waits for an agent, and processes that work on it. */
async function desk(scheduler: fc.Scheduler, ...before: readonly Decision[]) {
  const store = new MemoryEventStore();
  const clock = new TestClock();
  clock.stopAt(START);
  const unchanged = { find: () => Promise.resolve(undefined), save: () => Promise.resolve() };
  const writer = new Transactor(store, clock, randomIds, unchanged);
  const opened = conversation.inTurn(
    conversation.open({ visitorId: 'v', inboxId: 'i', channel: 'api' }),
    conversation.receive(message('Hello')),
  );
  for (const decision of [opened, ...before])
    await writer.transact(conversationAggregate, 'c', context(randomIds.next(), 'agent'), (state) => decision(state));
  clock.advance(60_000);
  const process = () => new Transactor(scheduled(store, scheduler), clock, randomIds, unchanged);
  // A process handles the commands of one conversation one after the other, so the people have processes of their own.
  const [here, there, ofPerson, ofVisitor] = [process(), process(), process(), process()];
  const run = async (by: Transactor, given: CommandContext, decision: Decision): Promise<Outcome> => {
    try {
      const { events } = await by.transact(conversationAggregate, 'c', given, (state) => decision(state));
      return events.map(({ id }) => id);
    } catch (error) {
      if (!(error instanceof ThreadlogError)) throw error;
      return error.code;
    }
  };
  return {
    /** A job, which two processes do at the same time. */
    job: (commandId: string, decision: Decision) =>
      Promise.all([run(here, context(commandId, 'automation'), decision), run(there, context(commandId, 'automation', 2), decision)]),
    person: (decision: Decision) => run(ofPerson, context(randomIds.next(), 'agent'), decision),
    visitor: (decision: Decision) => run(ofVisitor, context(randomIds.next(), 'visitor'), decision),
    events: async (): Promise<Recorded<ConversationEvent>[]> => {
      const events: Recorded<ConversationEvent>[] = [];
      for await (const batch of store.read(STREAM)) for (const stored of batch) events.push(decode(conversationAggregate.codec, stored));
      return events;
    },
  };
}

const fold = (events: readonly Recorded<ConversationEvent>[]) => events.reduce(conversationAggregate.evolve, conversationAggregate.initial);
const of = (events: readonly Recorded<ConversationEvent>[], commandId: string) =>
  events.filter(({ metadata }) => metadata.commandId === commandId);

it('what a rule does and a person resolves: each action once, and the conversation is resolved', async () => {
  const actions: Readonly<Record<string, Decision>> = {
    snooze: conversation.snooze(new Date(START + 3_600_000).toISOString(), START, 'automation'),
    pending: conversation.setStatus('pending', 'automation'),
    reply: conversation.reply(message('We are on it'), { type: 'automation', id: 'r', name: 'R' }),
    tag: conversation.addTags(['seen']),
  };
  const refused = new Set<string>();
  const done = new Set<string>();
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.subarray(Object.keys(actions), { minLength: 1 }), async (scheduler, chosen) => {
      const { job, person, events } = await desk(scheduler);
      const doing = Promise.all(chosen.map(async (name) => [name, await job(name, actions[name] as Decision)] as const));
      const resolving = person(conversation.setStatus('resolved', 'agent'));
      const [outcomes] = await scheduler.waitFor(Promise.all([doing, resolving]));
      const written = await events();
      const { status, episodeEnded, snooze } = fold(written);
      expect({ status, episodeEnded, snooze }).toEqual({ status: 'resolved', episodeEnded: true, snooze: null });
      for (const [name, [one, other]] of outcomes) {
        // Both processes are told the same, which is what the log holds.
        expect([name, one]).toEqual([name, other]);
        expect([name, typeof one === 'string' ? [] : one]).toEqual([name, of(written, name).map(({ id }) => id)]);
        (typeof one === 'string' ? refused : done).add(name);
      }
    }),
    { numRuns: 200 },
  );
  // Both orders were found.
  expect([...refused].sort()).toEqual(['pending', 'snooze']);
  expect([...done].sort()).toEqual(['pending', 'reply', 'snooze', 'tag']);
});

it('a snooze is over and a person resolves, while the visitor may write: only the visitor reopens', async () => {
  const seen = { woken: 0, slept: 0, reopened: 0 };
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.boolean(), async (scheduler, writes) => {
      const until = new Date(START + 30_000).toISOString();
      const { job, person, visitor, events } = await desk(scheduler, conversation.snooze(until, START));
      const snoozed = (await events()).at(-1)?.revision ?? -1;
      const all = Promise.all([
        job('wake', conversation.wake(snoozed, START + 60_000)),
        person(conversation.setStatus('resolved', 'agent')),
        ...(writes ? [visitor(conversation.receive(message('Still there?')))] : []),
      ]);
      await scheduler.waitFor(all);
      const written = await events();
      const woken = of(written, 'wake');
      expect(woken.length).toBeLessThanOrEqual(1);
      const resolved = written.findIndex(({ type, data }) => type === 'ConversationStatusChanged' && data.to === 'resolved');
      const later = written.slice(resolved + 1);
      expect(later.filter(({ metadata }) => metadata.actor.type !== 'visitor')).toEqual([]);
      expect(fold(written).status).toBe(later.length > 0 ? 'open' : 'resolved');
      expect(fold(written).snooze).toBeNull();
      seen[woken.length > 0 ? 'woken' : 'slept']++;
      if (later.length > 0) seen.reopened++;
    }),
    { numRuns: 200 },
  );
  // All orders were found.
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(10);
});
