import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import {
  addNote,
  addTags,
  assign,
  assignAutomatically,
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
  initialConversation,
  inTurn,
  open,
  PRIORITIES,
  type Priority,
  rate,
  receive,
  removeTag,
  reply,
  setStatus,
  type SettableStatus,
  snooze,
  type Status,
  takeOffArchived,
  wake,
} from '../../src/conversations/conversation.js';
import {
  type Unsealed,
  unsealConversation,
  unsealConversationEvent,
  sealAttributes,
  sealComment,
  sealMessage,
  sealSubject,
} from '../../src/conversations/conversation.sealing.js';
import { decode, type Recorded } from '../../src/event-store/aggregate.js';
import { type Position, type StoredEvent, streamName } from '../../src/event-store/event-store.js';
import { type ErrorCode, ThreadlogError } from '../../src/errors.js';
import { DataKey } from '../../src/security/sealing.js';

/*
 * A second, plainer telling of spec §2 runs beside the aggregate through random commands. After each one the two must agree, and what
 * holds of every conversation is looked at again.
 */

const START = Date.parse('2026-01-01T00:00:00Z');
const DAY = 86_400_000;
const key = new DataKey(Buffer.alloc(32, 7));

/** The plain telling. Personal values are plain here, and sealed in the aggregate. */
interface Model {
  now: number;
  status: Status;
  episodes: { ended: boolean; rating: { rating: number; comment: string | null } | null }[];
  ratedEpisode: number | null;
  until: string | null;
  tags: string[];
  assignee: string | null;
  team: string | null;
  takenFrom: string | null;
  subject: string | null;
  priority: Priority;
  attributes: Map<string, unknown>;
  inboxId: string;
  texts: string[];
  waiting: boolean;
  /** What the timers would say: each snooze with the revision of its event. */
  snoozes: { revision: number; until: string }[];
}

/** The aggregate as the log would hold it. */
interface Real {
  stored: StoredEvent[];
  state: Conversation;
  /** The fold of what readers see. */
  opened: Conversation<Unsealed>;
  messages: number;
}

const record = (real: Real, event: ConversationEvent, now: number): StoredEvent => ({
  id: '00000000-0000-4000-8000-000000000000',
  type: event.type,
  stream: streamName('conversation', 'acme', 'c1'),
  revision: real.stored.length,
  position: String(real.stored.length).padStart(9, '0') as Position,
  data: JSON.stringify(event.data),
  metadata: JSON.stringify({
    occurredAt: new Date(now).toISOString(),
    schemaVersion: conversationAggregate.codec.versions[event.type],
    keyId: 'key-of-ada',
  }),
});

const fold = (events: readonly Recorded<ConversationEvent>[]) =>
  events.reduce<Conversation>(evolveConversation, conversationAggregate.initial);

/** expect().toEqual(), which is slow, for what nearly always is equal. */
function same(actual: unknown, expected: unknown): void {
  if (!isDeepStrictEqual(actual, expected)) expect(actual).toEqual(expected);
}

type Expected = readonly ConversationEvent['type'][] | ErrorCode;

/** Asks the decision, holds it to what was foretold, and appends. */
function ask(real: Real, decision: Decision, expected: Expected, now: number): void {
  let events: readonly ConversationEvent[];
  try {
    events = decision(real.state);
  } catch (error) {
    if (!(error instanceof ThreadlogError)) throw error;
    same(error.code, expected);
    if (error.code === 'transition_not_allowed' || error.code === 'conversation_closed')
      expect(Array.isArray(error.extra.allowed)).toBe(true);
    return;
  }
  same(
    events.map(({ type }) => type),
    expected,
  );
  same(decision(real.state), events);

  for (const event of events) {
    const stored = record(real, event, now);
    const recorded = decode(conversationAggregate.codec, stored);
    // What was decided is what comes back out of the log, nothing added and nothing lost.
    same({ type: recorded.type, data: recorded.data }, JSON.parse(JSON.stringify(event)));
    real.stored.push(stored);
    const seen = seenByVisitor(real.state);
    const { shown } = real.state;
    real.state = evolveConversation(real.state, { ...recorded, ...event } as Recorded<ConversationEvent>);
    // What the visitor sees has changed, or nothing has that is told to one.
    const changed = !isDeepStrictEqual(seenByVisitor(real.state), seen);
    same(changed, event.type !== 'NoteAdded' && real.state.shown.revision === shown.revision + 1);
    if (!changed) same(real.state.shown, shown);
    real.opened = evolveConversation(real.opened, unsealConversationEvent(recorded, key));
    if (event.type === 'MessageReceived' || event.type === 'MessageSent' || event.type === 'NoteAdded') real.messages++;
  }
  same(decision(real.state), []);
}

/** All of the state that a visitor is shown, but its count and time. */
const seenByVisitor = (c: Conversation) => ({
  exists: c.exists,
  status: c.status === 'snoozed' ? 'open' : c.status,
  subject: c.subject,
  rating: c.rating,
  messages: c.shown.messageCount,
  last: c.shown.lastMessage,
});

/** The history as it would be if the team had kept its own doings to itself. */
const withoutTheTeamsOwn = (events: readonly Recorded<ConversationEvent>[]) =>
  events.filter(
    ({ type }) =>
      type === 'ConversationOpened' ||
      type === 'MessageReceived' ||
      type === 'MessageSent' ||
      type === 'ConversationStatusChanged' ||
      type === 'ConversationSnoozed' ||
      type === 'SubjectChanged' ||
      type === 'ConversationRated',
  );

/** What holds of every conversation, whatever happened to it. */
function holds(real: Real, model: Model): void {
  const { state, opened } = real;
  expect(state.status === 'snoozed').toBe(state.snooze !== null);
  expect(state.episodeEnded).toBe(state.status === 'resolved' || state.status === 'closed');
  if (state.episodeEnded) expect(state.waitingSince).toBeNull();
  expect(new Set(state.tags).size).toBe(state.tags.length);
  expect(state.messageCount).toBe(real.messages);
  expect(state.updatedAt >= state.createdAt).toBe(true);
  if (state.rating !== null) expect(state.rating.episode).toBeLessThanOrEqual(state.episodeEnded ? state.episode : state.episode - 1);

  // Unsealed before or after the fold, it reads the same.
  same(opened, unsealConversation(state, key));

  const rated = model.ratedEpisode === null ? null : model.episodes[model.ratedEpisode - 1]?.rating;
  const told = {
    status: opened.status,
    episode: opened.episode,
    ended: opened.episodeEnded,
    rating: opened.rating === null ? null : { rating: opened.rating.rating, comment: opened.rating.comment },
    ratedEpisode: opened.rating?.episode ?? null,
    until: opened.snooze?.until ?? null,
    tags: [...opened.tags].sort(),
    assignee: opened.assignee?.id ?? null,
    team: opened.team?.id ?? null,
    takenFrom: opened.takenFrom,
    subject: opened.subject,
    priority: opened.priority,
    attributes: new Map(Object.entries(opened.customAttributes)),
    inboxId: opened.inboxId,
    last: opened.lastMessage?.content,
    waiting: opened.waitingSince !== null,
  };
  same(told, {
    status: model.status,
    episode: model.episodes.length,
    ended: model.episodes.at(-1)?.ended,
    rating: rated ?? null,
    ratedEpisode: model.ratedEpisode,
    until: model.until,
    tags: [...model.tags].sort(),
    assignee: model.assignee,
    team: model.team,
    takenFrom: model.takenFrom,
    subject: model.subject,
    priority: model.priority,
    attributes: model.attributes,
    inboxId: model.inboxId,
    last: model.texts.at(-1),
    waiting: model.waiting,
  });
}

/** A command: what it asks of the aggregate, and what it means by the plain telling. */
class Step implements fc.Command<Model, Real> {
  constructor(
    readonly says: string,
    readonly means: (model: Model, real: Real) => { decision: Decision; expected: Expected },
  ) {}
  check = () => true;
  run(model: Model, real: Real): void {
    model.now += 1_000;
    const { decision, expected } = this.means(model, real);
    ask(real, decision, expected, model.now);
    holds(real, model);
  }
  toString = () => this.says;
}

const eve: Author = { type: 'agent', id: 'eve', name: 'Eve' };
const rule: Author = { type: 'automation', id: 'rule', name: 'Rule' };
const NOTHING: Expected = [];

/** Takes the archived off in the plain telling; answers the events that tell of it. */
function takeOff(model: Model, archived: ReadonlySet<string>): ConversationEvent['type'][] {
  const events: ConversationEvent['type'][] = [];
  if (model.assignee !== null && archived.has(model.assignee)) {
    model.takenFrom = null;
    if (model.assignee === model.team) model.team = null;
    model.assignee = null;
    events.push('ConversationUnassigned');
  }
  if (model.team !== null && archived.has(model.team)) {
    model.team = null;
    events.push('ConversationTeamChanged');
  }
  return events;
}

/** Moves the plain telling to a status; answers the events that tell of it. */
function move(model: Model, to: Status, archived: ReadonlySet<string>): ConversationEvent['type'][] {
  const from = model.status;
  if (from === to && to !== 'snoozed') return [];
  model.status = to;
  if (to !== 'snoozed') model.until = null;
  if (to !== 'snoozed') model.takenFrom = null;
  if (from === 'resolved' && to === 'open') model.episodes.push({ ended: false, rating: null });
  if (to === 'open') return ['ConversationStatusChanged', ...takeOff(model, archived)];
  if (to === 'resolved' || to === 'closed') {
    (model.episodes.at(-1) as { ended: boolean }).ended = true;
    model.waiting = false;
  }
  return [to === 'snoozed' ? 'ConversationSnoozed' : 'ConversationStatusChanged'];
}

/** The code that a change of status is refused with; undefined when it is allowed. */
const refusedTo = (model: Model, to: Status): ErrorCode | undefined => {
  if (model.status === to && to !== 'snoozed') return undefined;
  if (model.status === 'closed') return 'conversation_closed';
  return model.status === 'resolved' && (to === 'pending' || to === 'snoozed') ? 'transition_not_allowed' : undefined;
};

const settable = fc.constantFrom<SettableStatus>('open', 'pending', 'resolved', 'closed');
const archivedIds = fc.constantFrom<ReadonlySet<string>>(new Set(), new Set(['bo']), new Set(['tier-1']), new Set(['bo', 'tier-1']));
const text = fc.string({ minLength: 1, maxLength: 8, unit: 'grapheme' });
const attribute = fc.oneof(fc.string({ maxLength: 5 }), fc.integer(), fc.boolean());
let messages = 0;

const speak = fc
  .record({
    who: fc.constantFrom('visitor' as const, 'agent' as const, 'rule' as const, 'note' as const),
    content: text,
    status: fc.option(settable, { nil: undefined }),
    archived: archivedIds,
  })
  .map(
    ({ who, content, status, archived }) =>
      new Step(`${who} says ${JSON.stringify(content)}${status === undefined ? '' : ` and sets ${status}`}`, (model) => {
        const message = sealMessage(key, `m${++messages}`, { type: 'text', content });
        const author = who === 'rule' ? rule : eve;
        const decision =
          who === 'visitor' ? receive(message, archived) : (who === 'note' ? addNote : reply)(message, author, status, archived);
        if (model.status === 'closed') return { decision, expected: 'conversation_closed' };
        const to = who === 'visitor' ? 'open' : status;
        const refused = to === undefined ? undefined : refusedTo(model, to);
        if (refused !== undefined) return { decision, expected: refused };
        model.texts.push(content);
        if (who === 'visitor') model.waiting = true;
        if (who === 'agent') model.waiting = false;
        const said = who === 'visitor' ? 'MessageReceived' : who === 'note' ? 'NoteAdded' : 'MessageSent';
        return { decision, expected: [said, ...(to === undefined ? [] : move(model, to, archived))] };
      }),
  );

const changeStatus = fc.record({ to: settable, archived: archivedIds }).map(
  ({ to, archived }) =>
    new Step(`set ${to}`, (model) => ({
      decision: setStatus(to, 'agent', archived),
      expected: refusedTo(model, to) ?? move(model, to, archived),
    })),
);

const snoozes = fc.oneof(fc.constant('next_reply' as const), fc.integer({ min: -2, max: 400 })).map(
  (when) =>
    new Step(`snooze ${when === 'next_reply' ? when : `for ${when} days`}`, (model, real) => {
      const until = when === 'next_reply' ? when : new Date(model.now + when * DAY).toISOString();
      const decision = snooze(until, model.now);
      if (model.status === 'closed' || model.status === 'resolved') return { decision, expected: refusedTo(model, 'snoozed') as ErrorCode };
      if (model.status === 'snoozed' && model.until === until) return { decision, expected: NOTHING };
      if (when !== 'next_reply' && when <= 0) return { decision, expected: 'snooze_in_past' };
      // 2026 to 2027 has no leap day between, and the run's clock stays within hours of its start plus the waits.
      const year = new Date(model.now);
      year.setUTCFullYear(year.getUTCFullYear() + 1);
      if (when !== 'next_reply' && model.now + when * DAY > year.getTime()) return { decision, expected: 'snooze_too_far' };
      model.until = until;
      model.snoozes.push({ revision: real.stored.length, until });
      return { decision, expected: move(model, 'snoozed', new Set()) };
    }),
);

/** Any timer that was ever set may fire, on time, early or long after it was void. */
const timer = fc.record({ which: fc.nat({ max: 5 }), waits: fc.integer({ min: 0, max: 40 }), archived: archivedIds }).map(
  ({ which, waits, archived }) =>
    new Step(`wait ${waits} days, timer ${which} fires`, (model, real) => {
      model.now += waits * DAY;
      const set = model.snoozes[which];
      const decision = wake(set?.revision ?? real.stored.length, model.now, archived);
      const current = set !== undefined && model.snoozes.at(-1) === set && model.status === 'snoozed' && real.state.snooze !== null;
      const due = current && set.until !== 'next_reply' && Date.parse(set.until) <= model.now;
      return { decision, expected: due ? move(model, 'open', archived) : NOTHING };
    }),
);

const isTeam = (id: string | null) => id?.startsWith('tier') === true;
const assigning = fc
  .record({
    who: fc.constantFrom(undefined, null, 'bo', 'eve', 'tier-1', 'tier-2'),
    queue: fc.constantFrom(undefined, null, 'tier-1', 'tier-2'),
  })
  // The command refuses a team beside another one.
  .filter(({ who, queue }) => !(who !== undefined && isTeam(who) && queue !== undefined && queue !== who))
  .map(
    ({ who, queue }) =>
      new Step(`assign ${who} in ${queue}`, (model) => {
        const decision = assign(who && { id: who, type: isTeam(who) ? 'team' : 'agent', name: who }, queue && { id: queue, name: queue });
        if (model.status === 'closed') return { decision, expected: 'conversation_closed' };
        const { assignee, team } = model;
        if (who !== undefined) {
          // A team that nobody asked to keep it goes with its queue.
          if (who === null && queue === undefined && isTeam(assignee)) model.team = null;
          if (isTeam(who)) model.team = who;
          model.assignee = who;
        }
        if (queue !== undefined) {
          model.team = queue;
          if (who === undefined && isTeam(assignee)) model.assignee = queue;
        }
        if (model.assignee !== assignee) {
          model.takenFrom = model.assignee === null && !isTeam(assignee) ? assignee : null;
          return { decision, expected: [model.assignee === null ? 'ConversationUnassigned' : 'ConversationAssigned'] };
        }
        return { decision, expected: model.team === team ? NOTHING : ['ConversationTeamChanged'] };
      }),
  );

/** An inbox chose an agent, perhaps a while ago. */
const automatic = fc.record({ who: fc.constantFrom(undefined, 'bo', 'eve'), inboxId: fc.constantFrom('i1', 'i2') }).map(
  ({ who, inboxId }) =>
    new Step(`the inbox ${inboxId} assigns ${who}`, (model) => {
      const decision = assignAutomatically(who && { id: who, name: who }, { type: 'least_busy', inboxId });
      if (who === undefined || model.status !== 'open' || model.assignee !== null || model.inboxId !== inboxId)
        return { decision, expected: NOTHING };
      model.assignee = who;
      model.takenFrom = null;
      return { decision, expected: ['ConversationAssigned'] };
    }),
);

const archiving = archivedIds.map(
  (archived) =>
    new Step(`${[...archived].join(' and ') || 'nobody'} is archived`, (model) => ({
      decision: takeOffArchived(archived),
      expected: model.status === 'resolved' || model.status === 'closed' ? NOTHING : takeOff(model, archived),
    })),
);

const tagNames = fc.constantFrom('a', 'b', 'c', 'A');
const tagging = fc.array(tagNames, { minLength: 1, maxLength: 4 }).map(
  (tags) =>
    new Step(`tag ${tags.join(' ')}`, (model) => {
      const decision = addTags(tags);
      if (model.status === 'closed') return { decision, expected: 'conversation_closed' };
      const fresh = new Set(tags.filter((tag) => !model.tags.includes(tag)));
      model.tags.push(...fresh);
      return { decision, expected: fresh.size === 0 ? NOTHING : ['TagsAdded'] };
    }),
);
const untagging = tagNames.map(
  (tag) =>
    new Step(`untag ${tag}`, (model) => {
      const decision = removeTag(tag);
      if (model.status === 'closed') return { decision, expected: 'conversation_closed' };
      const there = model.tags.includes(tag);
      model.tags = model.tags.filter((one) => one !== tag);
      return { decision, expected: there ? ['TagRemoved'] : NOTHING };
    }),
);

/** Any of its own fields at once, and the status last, as PUT does. */
const changing = fc
  .record(
    {
      subject: fc.option(fc.constantFrom('s1', 's2')),
      priority: fc.constantFrom(...PRIORITIES),
      attributes: fc.dictionary(fc.constantFrom('k1', 'k2', 'k3', 'toString'), fc.option(attribute), { maxKeys: 3 }),
      inboxId: fc.constantFrom('i1', 'i2'),
      status: settable,
    },
    { requiredKeys: [] },
  )
  .map(
    (fields) =>
      new Step(`change ${JSON.stringify(fields)}`, (model) => {
        const decisions: Decision[] = [];
        const expected: ConversationEvent['type'][] = [];
        let differs = false;
        const change = (decision: Decision, changes: boolean, type: ConversationEvent['type'], apply: () => void): void => {
          decisions.push(decision);
          if (!changes) return;
          differs = true;
          expected.push(type);
          applied.push(apply);
        };
        const applied: (() => void)[] = [];
        const { subject, priority, attributes, inboxId, status } = fields;
        if (subject !== undefined)
          change(
            changeSubject(subject === null ? null : sealSubject(key, subject)),
            subject !== model.subject,
            'SubjectChanged',
            () => (model.subject = subject),
          );
        if (priority !== undefined)
          change(changePriority(priority), priority !== model.priority, 'PriorityChanged', () => (model.priority = priority));
        if (attributes !== undefined) {
          const entries = Object.entries(attributes);
          const changes = entries.some(([name, value]) =>
            value === null ? model.attributes.has(name) : model.attributes.get(name) !== value,
          );
          change(changeCustomAttributes(sealAttributes(key, attributes)), changes, 'CustomAttributesChanged', () => {
            for (const [name, value] of entries)
              if (value === null) model.attributes.delete(name);
              else model.attributes.set(name, value);
          });
        }
        if (inboxId !== undefined)
          change(changeInbox(inboxId), inboxId !== model.inboxId, 'InboxChanged', () => {
            model.inboxId = inboxId;
            model.takenFrom = null;
          });
        if (status !== undefined) decisions.push(setStatus(status, 'agent'));
        const decision = inTurn(...decisions);
        if (differs && model.status === 'closed') return { decision, expected: 'conversation_closed' };
        const refused = status === undefined ? undefined : refusedTo(model, status);
        if (refused !== undefined) return { decision, expected: refused };
        for (const apply of applied) apply();
        return { decision, expected: [...expected, ...(status === undefined ? [] : move(model, status, new Set()))] };
      }),
  );

const rating = fc.record({ stars: fc.integer({ min: 1, max: 5 }), comment: fc.constantFrom(undefined, null, 'fine', 'meh') }).map(
  ({ stars, comment }) =>
    new Step(`rate ${stars}`, (model) => {
      const decision = rate(stars, comment && sealComment(key, comment));
      const last = model.episodes.findLastIndex(({ ended }) => ended);
      const episode = model.episodes[last];
      if (episode === undefined) return { decision, expected: 'no_ended_episode' };
      const kept = model.ratedEpisode === last + 1 ? (episode.rating?.comment ?? null) : null;
      const given = { rating: stars, comment: comment === undefined ? kept : comment };
      const same = model.ratedEpisode === last + 1 && JSON.stringify(episode.rating) === JSON.stringify(given);
      episode.rating = given;
      model.ratedEpisode = last + 1;
      return { decision, expected: same ? NOTHING : ['ConversationRated'] };
    }),
);

const again = fc.constant(
  new Step('open again', () => ({ decision: open({ visitorId: 'ada', inboxId: 'i2', channel: 'api' }), expected: NOTHING })),
);

const commands = fc.commands(
  [speak, speak, changeStatus, changeStatus, snoozes, timer, assigning, automatic, archiving, tagging, untagging, changing, rating, again],
  {
    maxCommands: 40,
  },
);

/** An opened conversation, in both tellings. */
function start(): { model: Model; real: Real } {
  const real: Real = { stored: [], state: initialConversation, opened: initialConversation, messages: 0 };
  ask(
    real,
    inTurn(
      open({ visitorId: 'ada', inboxId: 'i1', channel: 'api', customAttributes: sealAttributes(key, { k1: 1 }) }),
      receive(sealMessage(key, 'm0', { type: 'text', content: 'hello' })),
    ),
    ['ConversationOpened', 'MessageReceived'],
    START,
  );
  const model: Model = {
    now: START,
    status: 'open',
    episodes: [{ ended: false, rating: null }],
    ratedEpisode: null,
    until: null,
    tags: [],
    assignee: null,
    team: null,
    takenFrom: null,
    subject: null,
    priority: 'normal',
    attributes: new Map<string, unknown>([['k1', 1]]),
    inboxId: 'i1',
    texts: ['hello'],
    waiting: true,
    snoozes: [],
  };
  holds(real, model);
  return { model, real };
}

test('whatever is asked, a conversation is as the specification tells it', () => {
  fc.assert(
    fc.property(commands, (steps) => {
      const { model, real } = start();
      fc.modelRun(() => ({ model, real }), steps);
      // Read back from its bytes, the history folds to the same.
      const history = real.stored.map((stored) => decode(conversationAggregate.codec, stored));
      expect(fold(history)).toEqual(real.state);
      expect(fold(withoutTheTeamsOwn(history)).shown).toEqual(real.state.shown);
    }),
    { numRuns: Number(process.env['PROPERTY_RUNS'] ?? 200) },
  );
}, 600_000);

test('a visitor whose key is gone reads as erased, whether the fold or the events are opened', () => {
  fc.assert(
    fc.property(commands, (steps) => {
      const { model, real } = start();
      fc.modelRun(() => ({ model, real }), steps);
      const decoded = real.stored.map((stored) => decode(conversationAggregate.codec, stored));
      const folded = decoded
        .map((event) => unsealConversationEvent(event, undefined))
        .reduce<Conversation<Unsealed>>(evolveConversation, initialConversation);
      expect(folded).toEqual(unsealConversation(real.state, undefined));
      expect(JSON.stringify(folded)).not.toContain('hello');
    }),
    { numRuns: 50 },
  );
}, 60_000);
