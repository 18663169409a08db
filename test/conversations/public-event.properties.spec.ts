import fc from 'fast-check';
import {
  addNote,
  addTags,
  assign,
  type Author,
  changeCustomAttributes,
  changeInbox,
  changePriority,
  changeSubject,
  type Conversation,
  conversationAggregate,
  type ConversationEvent,
  type Decision,
  evolveConversation,
  open,
  PRIORITIES,
  rate,
  receive,
  removeTag,
  reply,
  setStatus,
  type SettableStatus,
  snooze,
} from '../../src/conversations/conversation.js';
import {
  sealAttributes,
  sealComment,
  sealMessage,
  sealSubject,
  type Unsealed,
  unsealConversation,
  unsealConversationEvent,
} from '../../src/conversations/conversation.sealing.js';
import { changesBetween, parsePublicPosition, publicEventsOf, publicPosition } from '../../src/conversations/public-event.js';
import { visitorEvent } from '../../src/conversations/public-event.answer.js';
import type { PublicEvent } from '../../src/conversations/public-events.reader.js';
import { ThreadlogError } from '../../src/errors.js';
import { decode } from '../../src/event-store/aggregate.js';
import { type Position, streamName } from '../../src/event-store/event-store.js';
import { DataKey } from '../../src/security/sealing.js';

const START = Date.parse('2026-01-01T00:00:00Z');
const key = new DataKey(Buffer.alloc(32, 7));
const eve: Author = { type: 'agent', id: 'eve', name: 'Eve' };

/** What happens to a conversation, and whether it is the team's internal work. */
interface Step {
  readonly internal: boolean;
  readonly says: string;
  readonly decision: (message: string, now: number) => Decision;
}

const text = fc.string({ minLength: 1, maxLength: 5 });
const settable = fc.constantFrom<SettableStatus>('open', 'pending', 'resolved', 'closed');
const visible: fc.Arbitrary<Step> = fc
  .oneof(
    text.map((content) => ({ says: 'writes', decision: (id: string) => receive(sealMessage(key, id, { type: 'text', content })) })),
    text.map((content) => ({ says: 'replies', decision: (id: string) => reply(sealMessage(key, id, { type: 'text', content }), eve) })),
    settable.map((to) => ({ says: `sets ${to}`, decision: () => setStatus(to, 'agent') })),
    fc
      .option(text)
      .map((subject) => ({ says: 'names', decision: () => changeSubject(subject === null ? null : sealSubject(key, subject)) })),
    fc.integer({ min: 1, max: 5 }).map((stars) => ({ says: 'rates', decision: () => rate(stars, sealComment(key, 'fine')) })),
  )
  .map((step) => ({ ...step, internal: false }));
const internal: fc.Arbitrary<Step> = fc
  .oneof(
    text.map((content) => ({ says: 'notes', decision: (id: string) => addNote(sealMessage(key, id, { type: 'text', content }), eve) })),
    fc.option(fc.constantFrom('eve', 'bo')).map((id) => ({
      says: 'assigns',
      decision: () => assign(id === null ? null : { type: 'agent', id, name: id }),
    })),
    fc.constantFrom('a', 'b').map((tag) => ({ says: 'tags', decision: () => addTags([tag]) })),
    fc.constantFrom('a', 'b').map((tag) => ({ says: 'untags', decision: () => removeTag(tag) })),
    fc.constantFrom(...PRIORITIES).map((to) => ({ says: 'ranks', decision: () => changePriority(to) })),
    fc.constantFrom('one', 'two').map((to) => ({ says: 'moves', decision: () => changeInbox(to) })),
    text.map((value) => ({ says: 'marks', decision: () => changeCustomAttributes(sealAttributes(key, { x: value })) })),
    // A visitor is shown a snoozed conversation as an open one, so the snooze of a pending one is no secret.
    fc.constant({
      says: 'snoozes',
      decision:
        (_: string, now: number): Decision =>
        (c) =>
          c.status === 'open' ? snooze(new Date(now + 86_400_000).toISOString(), now)(c) : [],
    }),
  )
  .map((step) => ({ ...step, internal: true }));

interface Told {
  readonly type: string;
  readonly body: object;
  readonly position: string;
}

/** Lets the steps happen, and answers the public events, and what of them a visitor is told. */
function run(steps: readonly (Step & { readonly nr: number })[]): { readonly told: Told[]; readonly events: PublicEvent[] } {
  let state: Conversation = conversationAggregate.initial;
  let revision = -1;
  const events: PublicEvent[] = [];
  const happen = (decision: Decision, now: number) => {
    let decided: readonly ConversationEvent[];
    try {
      decided = decision(state);
    } catch (error) {
      if (error instanceof ThreadlogError) return;
      throw error;
    }
    for (const made of decided) {
      const event = decode(conversationAggregate.codec, {
        id: '00000000-0000-4000-8000-000000000000',
        type: made.type,
        stream: streamName('conversation', 'acme', 'c1'),
        revision: ++revision,
        position: String(revision).padStart(19, '0') as Position,
        data: JSON.stringify(made.data),
        metadata: JSON.stringify({
          occurredAt: new Date(now).toISOString(),
          actor: { type: 'agent', id: 'eve' },
          schemaVersion: conversationAggregate.codec.versions[made.type],
          keyId: 'k',
        }),
      });
      const before: Conversation<Unsealed> = unsealConversation(state, key);
      state = evolveConversation(state, event);
      const types = publicEventsOf(event);
      const told = { organizationId: 'acme', conversationId: 'c1', event: unsealConversationEvent(event, key), before };
      for (const [index, type] of types.entries())
        events.push({
          ...told,
          after: unsealConversation(state, key),
          type,
          index,
          position: publicPosition(event.position, index, types.length),
        });
    }
  };
  happen(open({ visitorId: 'ada', inboxId: 'one', channel: 'api' }), START);
  for (const { decision, nr } of steps) happen(decision(`m${nr}`, START + nr * 1_000), START + nr * 1_000);
  const told = events.flatMap((event) => {
    const said = visitorEvent(event, '');
    return said === undefined ? [] : [{ ...said, position: event.position }];
  });
  return { told, events };
}

const bytesOf = (told: readonly Told[]) => told.map(({ type, body }) => JSON.stringify({ type, ...body, position: '' }));
const history = fc
  .array(fc.oneof({ weight: 2, arbitrary: visible }, { weight: 3, arbitrary: internal }), { maxLength: 25 })
  .map((steps) => steps.map((step, nr) => ({ ...step, nr, toString: () => step.says })));

test('what a visitor is told is the same, byte for byte, with and without the internal work of the team', () => {
  let seen = 0;
  fc.assert(
    fc.property(history, (steps) => {
      const whole = run(steps);
      const without = run(steps.filter((step) => !step.internal));
      seen += whole.events.length - whole.told.length;
      expect(bytesOf(whole.told)).toEqual(bytesOf(without.told));
    }),
    { numRuns: 400 },
  );
  // The runs did differ.
  expect(seen).toBeGreaterThan(1_000);
});

test('public events come in the order of their positions as texts, and each tells what it changed', () => {
  fc.assert(
    fc.property(history, (steps) => {
      const { events } = run(steps);
      const positions = events.map(({ position }) => position);
      expect(positions).toEqual([...new Set(positions)].toSorted());
      for (const { type, position, index, event, before, after } of events) {
        const parsed = parsePublicPosition(position);
        expect(parsed.position).toBe(event.position);
        expect(parsed.told === Infinity || parsed.told === index + 1).toBe(true);
        const isChange = event.type !== 'ConversationOpened' && !/^(message|note)\./.test(type);
        if (isChange) expect(changesBetween(before, after)).not.toEqual([]);
        // What accompanies every change comes last.
        if (type === 'conversation.updated') expect(events.filter((one) => one.event === event).at(-1)?.type).toBe(type);
      }
    }),
    { numRuns: 200 },
  );
});
