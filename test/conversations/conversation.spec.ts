import {
  addNote,
  addTags,
  assign,
  assignAutomatically,
  type Assignee,
  type Author,
  changeCustomAttributes,
  changeInbox,
  changePriority,
  changeSubject,
  type Conversation,
  conversationAggregate,
  type ConversationEvent,
  type Decision,
  ifExists,
  inTurn,
  MAX_ATTRIBUTES,
  MAX_TAGS,
  type MessageFacts,
  open,
  rate,
  receive,
  removeTag,
  reply,
  setStatus,
  type SettableStatus,
  snooze,
  type Status,
  STATUSES,
  takeOffArchived,
  wake,
} from '../../src/conversations/conversation.js';
import type { Sealed } from '../../src/security/sealing.js';
import { given, instant } from '../support/given.js';

const conversation = (...history: readonly ConversationEvent[]) => given(conversationAggregate, ...history);

/** Stands for a sealed value: decisions compare and carry them, and never read them. */
const sealed = (text: string) => `sealed ${text}` as Sealed;
const message = (messageId: string): MessageFacts => ({ messageId, contentType: 'text', content: sealed(messageId) });

const NOW = Date.parse(instant(3_600));
const TOMORROW = new Date(NOW + 86_400_000).toISOString();
const NEXT_WEEK = new Date(NOW + 7 * 86_400_000).toISOString();

const eve: Author = { type: 'agent', id: 'eve', name: 'Eve' };
const rule: Author = { type: 'automation', id: 'rule-1', name: 'Greeter' };
const agent = (id: string): Assignee => ({ id, type: 'agent', name: id.toUpperCase() });
const team = (id: string): Assignee => ({ id, type: 'team', name: id.toUpperCase() });

const opened: ConversationEvent = {
  type: 'ConversationOpened',
  data: { visitorId: 'ada', inboxId: 'billing', channel: 'api', priority: 'normal' },
};
const received = (messageId: string): ConversationEvent => ({ type: 'MessageReceived', data: message(messageId) });
const sent = (messageId: string, author = eve): ConversationEvent => ({ type: 'MessageSent', data: { ...message(messageId), author } });
const noted = (messageId: string, author = eve): ConversationEvent => ({ type: 'NoteAdded', data: { ...message(messageId), author } });
const changed = (
  from: Status,
  to: SettableStatus,
  reason: 'visitor_message' | 'agent' | 'automation' | 'snooze_elapsed' | 'import' = 'agent',
  episode = 1,
): ConversationEvent => ({ type: 'ConversationStatusChanged', data: { from, to, reason, episode } });
const snoozed = (from: Status, until: string): ConversationEvent => ({
  type: 'ConversationSnoozed',
  data: { from, until, reason: 'agent' },
});
const assigned = (assignee: Assignee, through: Assignee | null = null): ConversationEvent => ({
  type: 'ConversationAssigned',
  data: { assignee, team: through === null ? null : { id: through.id, name: through.name } },
});

const unassigned = (previous: Assignee, through: Assignee | null, reason: 'asked' | 'archived' = 'asked'): ConversationEvent => ({
  type: 'ConversationUnassigned',
  data: { previous, team: through === null ? null : { id: through.id, name: through.name }, reason },
});
const teamChanged = (from: Assignee | null, to: Assignee | null, reason: 'asked' | 'archived' = 'asked'): ConversationEvent => ({
  type: 'ConversationTeamChanged',
  data: { from: queue(from), to: queue(to), reason },
});
const queue = (of: Assignee | null) => of && { id: of.id, name: of.name };

/** A conversation in each status, with the shortest history that leads there. */
const IN: { readonly [S in Status]: readonly ConversationEvent[] } = {
  open: [opened, received('m1')],
  pending: [opened, received('m1'), changed('open', 'pending')],
  snoozed: [opened, received('m1'), snoozed('open', TOMORROW)],
  resolved: [opened, received('m1'), changed('open', 'resolved')],
  closed: [opened, received('m1'), changed('open', 'closed')],
};

describe('the status table', () => {
  /** What each column asks, and what it leaves behind beside a change of status. */
  const COLUMNS = {
    'visitor writes': { decision: receive(message('m2')), says: [received('m2')] },
    'agent replies': { decision: reply(message('m2'), eve), says: [sent('m2')] },
    'rule replies': { decision: reply(message('m2'), rule), says: [sent('m2', rule)] },
    'agent notes': { decision: addNote(message('m2'), eve), says: [noted('m2')] },
    assign: { decision: assign(agent('bo')), says: [assigned(agent('bo'))] },
    tag: { decision: addTags(['late']), says: [{ type: 'TagsAdded', data: { tags: ['late'] } }] },
    subject: { decision: changeSubject(sealed('s')), says: [{ type: 'SubjectChanged', data: { subject: sealed('s') } }] },
    attribute: {
      decision: changeCustomAttributes({ k: sealed('v') }),
      says: [{ type: 'CustomAttributesChanged', data: { set: { k: sealed('v') }, removed: [] } }],
    },
    inbox: { decision: changeInbox('sales'), says: [{ type: 'InboxChanged', data: { from: 'billing', to: 'sales' } }] },
    priority: { decision: changePriority('high'), says: [{ type: 'PriorityChanged', data: { from: 'normal', to: 'high' } }] },
    'set open': { decision: setStatus('open', 'agent'), says: [] },
    'set pending': { decision: setStatus('pending', 'agent'), says: [] },
    'set resolved': { decision: setStatus('resolved', 'agent'), says: [] },
    'set closed': { decision: setStatus('closed', 'agent'), says: [] },
    snooze: { decision: snooze(NEXT_WEEK, NOW), says: [] },
    // A snooze of revision 2 is in force only where IN.snoozed made one.
    'time due': { decision: wake(2, Date.parse(TOMORROW)), says: [] },
  } as const satisfies Record<string, { decision: Decision; says: readonly ConversationEvent[] }>;

  type Cell = ConversationEvent | 'nothing' | 'stays' | 'closed' | 'not allowed';
  const stays = 'stays';
  const followsNote = {
    'agent replies': stays,
    'rule replies': stays,
    'agent notes': stays,
    assign: stays,
    tag: stays,
    subject: stays,
    attribute: stays,
    inbox: stays,
    priority: stays,
  } as const;
  const TABLE: { readonly [S in Status]: { readonly [C in keyof typeof COLUMNS]: Cell } } = {
    open: {
      ...followsNote,
      'visitor writes': stays,
      'set open': 'nothing',
      'set pending': changed('open', 'pending'),
      'set resolved': changed('open', 'resolved'),
      'set closed': changed('open', 'closed'),
      snooze: snoozed('open', NEXT_WEEK),
      'time due': 'nothing',
    },
    pending: {
      ...followsNote,
      'visitor writes': changed('pending', 'open', 'visitor_message'),
      'set open': changed('pending', 'open'),
      'set pending': 'nothing',
      'set resolved': changed('pending', 'resolved'),
      'set closed': changed('pending', 'closed'),
      snooze: snoozed('pending', NEXT_WEEK),
      'time due': 'nothing',
    },
    snoozed: {
      ...followsNote,
      'visitor writes': changed('snoozed', 'open', 'visitor_message'),
      'set open': changed('snoozed', 'open'),
      'set pending': changed('snoozed', 'pending'),
      'set resolved': changed('snoozed', 'resolved'),
      'set closed': changed('snoozed', 'closed'),
      snooze: snoozed('snoozed', NEXT_WEEK),
      'time due': changed('snoozed', 'open', 'snooze_elapsed'),
    },
    resolved: {
      ...followsNote,
      'visitor writes': changed('resolved', 'open', 'visitor_message', 2),
      'set open': changed('resolved', 'open', 'agent', 2),
      'set pending': 'not allowed',
      'set resolved': 'nothing',
      'set closed': changed('resolved', 'closed'),
      snooze: 'not allowed',
      'time due': 'nothing',
    },
    closed: {
      'visitor writes': 'closed',
      'agent replies': 'closed',
      'rule replies': 'closed',
      'agent notes': 'closed',
      assign: 'closed',
      tag: 'closed',
      subject: 'closed',
      attribute: 'closed',
      inbox: 'closed',
      priority: 'closed',
      'set open': 'closed',
      'set pending': 'closed',
      'set resolved': 'closed',
      'set closed': 'nothing',
      snooze: 'closed',
      'time due': 'nothing',
    },
  };

  const cells = STATUSES.flatMap((status) =>
    (Object.keys(COLUMNS) as (keyof typeof COLUMNS)[]).map((column) => [status, column, TABLE[status][column]] as const),
  );

  test.each(cells)('%s: %s', (status, column, cell) => {
    const { decision, says } = COLUMNS[column];
    const asked = conversation(...IN[status]).when(decision);
    if (cell === 'nothing') asked.thenNothing();
    else if (cell === 'closed') expect(asked.thenRefused('conversation_closed').extra.allowed).toEqual([]);
    else if (cell === 'not allowed') {
      const { allowed = [] } = asked.thenRefused('transition_not_allowed').extra;
      expect(allowed).toEqual(['message', 'reply', 'note', 'assign', 'tag', 'open', 'closed']);
    } else if (cell === 'stays') expect(asked.thenEvents(...says).status).toBe(status);
    else {
      const after = asked.thenEvents(...says, cell);
      expect(after.status).toBe(cell.type === 'ConversationStatusChanged' ? cell.data.to : 'snoozed');
    }
  });

  test.each(STATUSES)('the moves that a 409 would name while %s are those that do something', (status) => {
    const moves: Record<string, Decision> = {
      message: receive(message('m2')),
      reply: reply(message('m2'), eve),
      note: addNote(message('m2'), eve),
      assign: assign(agent('bo')),
      tag: addTags(['late']),
      open: setStatus('open', 'agent'),
      pending: setStatus('pending', 'agent'),
      resolved: setStatus('resolved', 'agent'),
      closed: setStatus('closed', 'agent'),
      snooze: snooze(NEXT_WEEK, NOW),
    };
    const { state } = conversation(...IN[status]);
    const allowed = Object.keys(moves).filter((move) => {
      try {
        return (moves[move] as Decision)(state).length > 0;
      } catch {
        return false;
      }
    });
    expect(allowed).toEqual(
      {
        open: ['message', 'reply', 'note', 'assign', 'tag', 'pending', 'resolved', 'closed', 'snooze'],
        pending: ['message', 'reply', 'note', 'assign', 'tag', 'open', 'resolved', 'closed', 'snooze'],
        snoozed: ['message', 'reply', 'note', 'assign', 'tag', 'open', 'pending', 'resolved', 'closed', 'snooze'],
        resolved: ['message', 'reply', 'note', 'assign', 'tag', 'open', 'closed'],
        closed: [],
      }[status],
    );
  });
});

describe('opening', () => {
  const asked = { visitorId: 'ada', inboxId: 'billing', channel: 'api' } as const;

  test('with the first message starts the first episode, and waits since then', () => {
    const after = conversation()
      .when(inTurn(open(asked), receive(message('m1'))))
      .thenEvents(opened, received('m1'));
    expect(after).toMatchObject({
      exists: true,
      status: 'open',
      episode: 1,
      episodeEnded: false,
      waitingSince: instant(1),
      createdAt: instant(0),
      updatedAt: instant(1),
    });
  });

  test('by an agent waits for nobody', () => {
    const after = conversation()
      .when(inTurn(open(asked), reply(message('m1'), eve)))
      .thenEvents(opened, sent('m1'));
    expect(after.waitingSince).toBeNull();
  });

  test('keeps everything it is given', () => {
    const all = {
      ...asked,
      companyId: 'acme',
      priority: 'urgent',
      subject: sealed('subject'),
      customAttributes: { plan: sealed('pro') },
      previousConversationId: 'c0',
    } as const;
    const after = conversation().when(open(all)).thenEvents({ type: 'ConversationOpened', data: all });
    expect(after).toMatchObject({
      visitorId: 'ada',
      inboxId: 'billing',
      channel: 'api',
      companyId: 'acme',
      priority: 'urgent',
      subject: sealed('subject'),
      customAttributes: { plan: sealed('pro') },
      previousConversationId: 'c0',
    });
  });

  test.each<[string, Decision]>([
    ['a message', receive(message('m1'))],
    ['a reply', reply(message('m1'), eve, 'resolved')],
    ['a note', addNote(message('m1'), eve)],
    ['a status', setStatus('open', 'agent')],
    ['a snooze', snooze(TOMORROW, NOW)],
    ['a timer', wake(0, NOW)],
    ['an assignee', assign(null)],
    ['a tag', addTags(['a'])],
    ['a tag taken off', removeTag('a')],
    ['a subject', changeSubject(null)],
    ['a priority', changePriority('normal')],
    ['attributes', changeCustomAttributes({})],
    ['an inbox', changeInbox('billing')],
    ['a rating', rate(5)],
    ['nothing', ifExists],
  ])('comes before %s', (_, decision) => {
    conversation().when(decision).thenRefused('not_found');
  });
});

describe('a reply with a status', () => {
  test('is the message first, then the status', () => {
    conversation(...IN.open)
      .when(reply(message('m2'), eve, 'resolved'))
      .thenEvents(sent('m2'), changed('open', 'resolved'));
  });

  test('says that automation changed it', () => {
    conversation(...IN.open)
      .when(reply(message('m2'), rule, 'pending'))
      .thenEvents(sent('m2', rule), changed('open', 'pending', 'automation'));
  });

  test('of the conversation already is the message alone', () => {
    conversation(...IN.pending)
      .when(reply(message('m2'), eve, 'pending'))
      .thenEvents(sent('m2'));
  });

  test('may close what it answers, once', () => {
    conversation(...IN.snoozed)
      .when(reply(message('m2'), eve, 'closed'))
      .thenEvents(sent('m2'), changed('snoozed', 'closed'));
  });

  test('that is not allowed sends nothing', () => {
    conversation(...IN.resolved)
      .when(reply(message('m2'), eve, 'pending'))
      .thenRefused('transition_not_allowed');
  });

  test('reopens what is resolved', () => {
    conversation(...IN.resolved)
      .when(reply(message('m2'), eve, 'open'))
      .thenEvents(sent('m2'), changed('resolved', 'open', 'agent', 2));
  });

  test('works for a note too', () => {
    conversation(...IN.open)
      .when(addNote(message('m2'), eve, 'closed'))
      .thenEvents(noted('m2'), changed('open', 'closed'));
  });
});

describe('closing and changing at once', () => {
  test('can be asked again', () => {
    const all = inTurn(
      changeSubject(sealed('s')),
      changePriority('low'),
      changeCustomAttributes({ k: sealed('v') }),
      changeInbox('sales'),
      setStatus('closed', 'agent'),
    );
    const after = conversation(...IN.open)
      .when(all)
      .thenEvents(
        { type: 'SubjectChanged', data: { subject: sealed('s') } },
        { type: 'PriorityChanged', data: { from: 'normal', to: 'low' } },
        { type: 'CustomAttributesChanged', data: { set: { k: sealed('v') }, removed: [] } },
        { type: 'InboxChanged', data: { from: 'billing', to: 'sales' } },
        changed('open', 'closed'),
      );
    expect(after.status).toBe('closed');
  });
});

describe('waiting for an answer', () => {
  const wait = (...history: readonly ConversationEvent[]) => conversation(opened, ...history).state.waitingSince;

  test('begins with the first unanswered message of the visitor', () => {
    expect(wait(received('m1'), received('m2'))).toBe(instant(1));
  });
  test("ends with a person's public reply", () => {
    expect(wait(received('m1'), sent('m2'))).toBeNull();
  });
  test('begins anew after it', () => {
    expect(wait(received('m1'), sent('m2'), received('m3'), received('m4'))).toBe(instant(3));
  });
  test('goes on through a note', () => {
    expect(wait(received('m1'), noted('m2'))).toBe(instant(1));
  });
  test('goes on through an automatic answer', () => {
    expect(wait(received('m1'), sent('m2', rule))).toBe(instant(1));
  });
  test('goes on through pending and a snooze', () => {
    expect(wait(received('m1'), changed('open', 'pending'), snoozed('pending', TOMORROW))).toBe(instant(1));
  });
  test.each(['resolved', 'closed'] as const)('ends with %s', (to) => {
    expect(wait(received('m1'), changed('open', to))).toBeNull();
  });
  test('begins with the message that reopens', () => {
    expect(wait(received('m1'), changed('open', 'resolved'), received('m2'), changed('resolved', 'open', 'visitor_message', 2))).toBe(
      instant(3),
    );
  });
  test("ends with an API key's reply, which counts as a person's", () => {
    expect(wait(received('m1'), sent('m2', { type: 'apiKey', id: 'k', name: 'Key' }))).toBeNull();
  });
});

describe('assigning', () => {
  test('the same assignee again changes nothing', () => {
    conversation(...IN.open, assigned(agent('bo')))
      .when(assign(agent('bo')))
      .thenNothing();
  });

  test('to nobody while nobody has it changes nothing', () => {
    conversation(...IN.open)
      .when(assign(null))
      .thenNothing();
  });

  test('to a team sets the team, which stays beside the agent who takes over', () => {
    const toTeam = conversation(...IN.open)
      .when(assign(team('tier-1')))
      .thenEvents(assigned(team('tier-1'), team('tier-1')));
    expect(toTeam).toMatchObject({ assignee: team('tier-1'), team: { id: 'tier-1', name: 'TIER-1' } });
    const toAgent = conversation(...IN.open, assigned(team('tier-1'), team('tier-1')))
      .when(assign(agent('bo')))
      .thenEvents(assigned(agent('bo'), team('tier-1')));
    expect(toAgent).toMatchObject({ assignee: agent('bo'), team: { id: 'tier-1' } });
  });

  test('to another team moves it there', () => {
    const after = conversation(...IN.open, assigned(team('tier-1'), team('tier-1')), assigned(agent('bo'), team('tier-1')))
      .when(assign(team('tier-2')))
      .thenEvents(assigned(team('tier-2'), team('tier-2')));
    expect(after.team?.id).toBe('tier-2');
  });

  test('to nobody takes it from an agent and leaves it with the team', () => {
    conversation(...IN.open, assigned(agent('bo'), team('tier-1')))
      .when(assign(null))
      .thenEvents({
        type: 'ConversationUnassigned',
        data: { previous: agent('bo'), team: { id: 'tier-1', name: 'TIER-1' }, reason: 'asked' },
      });
  });

  test('to nobody takes it out of the queue of the team that has it', () => {
    const after = conversation(...IN.open, assigned(team('tier-1'), team('tier-1')))
      .when(assign(null))
      .thenEvents({ type: 'ConversationUnassigned', data: { previous: team('tier-1'), team: null, reason: 'asked' } });
    expect(after).toMatchObject({ assignee: null, team: null });
  });
});

describe('assigning by an inbox', () => {
  const reason = { type: 'round_robin', inboxId: 'billing' } as const;
  const byInbox = assignAutomatically(agent('bo'), reason);

  test('gives an open conversation that nobody has to the agent, in the queue where it is, and says why', () => {
    const after = conversation(...IN.open, teamChanged(null, team('tier-1')))
      .when(byInbox)
      .thenEvents({
        type: 'ConversationAssigned',
        data: { assignee: agent('bo'), team: { id: 'tier-1', name: 'TIER-1' }, reason },
      });
    expect(after.assignee).toEqual(agent('bo'));
  });

  test.each([
    ['nobody is free', IN.open, assignAutomatically(undefined, reason)],
    ['somebody has it', [...IN.open, assigned(agent('eve'))], byInbox],
    ['a team has it', [...IN.open, assigned(team('tier-1'))], byInbox],
    ['it is in another inbox', IN.open, assignAutomatically(agent('bo'), { type: 'least_busy', inboxId: 'sales' })],
    ...(['pending', 'snoozed', 'resolved', 'closed'] as const).map((status) => [`it is ${status}`, IN[status], byInbox] as const),
  ] as const)('does nothing while %s', (_, history, decision) => {
    conversation(...history)
      .when(decision)
      .thenNothing();
  });

  test.each<readonly [string, readonly ConversationEvent[], string | null]>([
    ['an agent from whom it is taken', [unassigned(agent('bo'), null)], 'bo'],
    ['not an agent who is archived', [unassigned(agent('bo'), null, 'archived')], null],
    ['nobody once somebody else has it', [unassigned(agent('bo'), null), assigned(agent('eve'))], null],
    ['nobody once it is opened again', [unassigned(agent('bo'), null), changed('open', 'pending'), changed('pending', 'open')], null],
    [
      'nobody once it is in another inbox',
      [unassigned(agent('bo'), null), { type: 'InboxChanged', data: { from: 'billing', to: 'sales' } }],
      null,
    ],
    ['an agent whatever is said meanwhile', [unassigned(agent('bo'), null), received('m2'), sent('m3')], 'bo'],
  ])('remembers %s', (_, events, takenFrom) => {
    const history = [...IN.open, assigned(agent('bo')), ...events];
    expect(conversation(...history).state.takenFrom).toBe(takenFrom);
  });
});

describe('the queue of a team', () => {
  const [one, two] = [team('tier-1'), team('tier-2')];
  /** Who has it and in which queue it is before; what is asked; what happens. */
  const CASES: readonly (readonly [string, readonly ConversationEvent[], Decision, readonly ConversationEvent[]])[] = [
    ['is entered while nobody has the conversation', [], assign(undefined, queue(one)), [teamChanged(null, one)]],
    ['is entered beside the agent who has it', [assigned(agent('bo'))], assign(undefined, queue(one)), [teamChanged(null, one)]],
    ['is changed beside the agent', [assigned(agent('bo'), one)], assign(undefined, queue(two)), [teamChanged(one, two)]],
    ['is changed with the team that has the conversation', [assigned(one, one)], assign(undefined, queue(two)), [assigned(two, two)]],
    ['is left beside the agent', [assigned(agent('bo'), one)], assign(undefined, null), [teamChanged(one, null)]],
    ['is left while nobody has it', [teamChanged(null, one)], assign(undefined, null), [teamChanged(one, null)]],
    ['is left with the team that has the conversation', [assigned(one, one)], assign(undefined, null), [unassigned(one, null)]],
    ['is entered with an agent, at once', [], assign(agent('bo'), queue(one)), [assigned(agent('bo'), one)]],
    ['is left with an agent, at once', [assigned(one, one)], assign(agent('bo'), null), [assigned(agent('bo'), null)]],
    ['is entered by the agent who has it', [assigned(agent('bo'))], assign(agent('bo'), queue(one)), [teamChanged(null, one)]],
    ['keeps what its team no longer has', [assigned(one, one)], assign(null, queue(one)), [unassigned(one, one)]],
    ['is entered with nobody, from another', [assigned(agent('bo'), two)], assign(null, queue(one)), [unassigned(agent('bo'), one)]],
    ['is left with nobody', [assigned(agent('bo'), one)], assign(null, null), [unassigned(agent('bo'), null)]],
    ['is named with the team itself', [], assign(one, queue(one)), [assigned(one, one)]],
    ['that it is in changes nothing', [assigned(agent('bo'), one)], assign(undefined, queue(one)), []],
    ['that it is in and who has it change nothing', [assigned(agent('bo'), one)], assign(agent('bo'), queue(one)), []],
    ['that it is not in is not left', [assigned(agent('bo'))], assign(undefined, null), []],
  ];
  test.each(CASES)('%s', (_, history, decision, events) => {
    const before = conversation(...IN.open, ...history);
    if (events.length === 0) before.when(decision).thenNothing();
    else before.when(decision).thenEvents(...events);
  });

  test('is not for a closed conversation', () => {
    conversation(...IN.closed)
      .when(assign(undefined, queue(one)))
      .thenRefused('conversation_closed');
  });
});

describe('archived agents and teams', () => {
  const gone = new Set(['bo', 'tier-1']);
  const queued = assigned(agent('bo'), team('tier-1'));
  test.each(['open', 'pending', 'snoozed'] as const)('leave what has not ended: %s', (status) => {
    conversation(...IN[status], queued)
      .when(takeOffArchived(new Set(['bo'])))
      .thenEvents(unassigned(agent('bo'), team('tier-1'), 'archived'));
    conversation(...IN[status], queued)
      .when(takeOffArchived(new Set(['tier-1'])))
      .thenEvents(teamChanged(team('tier-1'), null, 'archived'));
    const after = conversation(...IN[status], queued)
      .when(takeOffArchived(gone))
      .thenEvents(unassigned(agent('bo'), team('tier-1'), 'archived'), teamChanged(team('tier-1'), null, 'archived'));
    expect(after).toMatchObject({ status, assignee: null, team: null });
    conversation(...IN[status], assigned(team('tier-1'), team('tier-1')))
      .when(takeOffArchived(gone))
      .thenEvents(unassigned(team('tier-1'), null, 'archived'));
  });
  test.each(['resolved', 'closed'] as const)('stay with what has ended: %s', (status) => {
    const history = [...IN.open, queued, changed('open', status)];
    conversation(...history)
      .when(takeOffArchived(gone))
      .thenNothing();
  });
  test('that a conversation does not have change nothing, and it must be there', () => {
    conversation(...IN.open, assigned(agent('eve')))
      .when(takeOffArchived(gone))
      .thenNothing();
    conversation().when(takeOffArchived(gone)).thenRefused('not_found');
  });
});

describe('reopening', () => {
  const withBo = [opened, received('m1'), assigned(agent('bo'), team('tier-1')), changed('open', 'resolved')];

  test('keeps the assignee', () => {
    const after = conversation(...withBo)
      .when(receive(message('m2'), new Set(['someone-else'])))
      .thenEvents(received('m2'), changed('resolved', 'open', 'visitor_message', 2));
    expect(after.assignee).toEqual(agent('bo'));
  });

  const archived = new Set(['bo']);
  const left = unassigned(agent('bo'), team('tier-1'), 'archived');
  test('takes it from an archived one: by the visitor', () => {
    conversation(...withBo)
      .when(receive(message('m2'), archived))
      .thenEvents(received('m2'), changed('resolved', 'open', 'visitor_message', 2), left);
  });
  test('takes it from an archived one: by setting the status', () => {
    conversation(...withBo)
      .when(setStatus('open', 'agent', archived))
      .thenEvents(changed('resolved', 'open', 'agent', 2), left);
  });
  test('takes it from an archived one: by a reply', () => {
    conversation(...withBo)
      .when(reply(message('m2'), eve, 'open', archived))
      .thenEvents(sent('m2'), changed('resolved', 'open', 'agent', 2), left);
  });
  test('takes it out of the queue of an archived team', () => {
    const after = conversation(...withBo)
      .when(receive(message('m2'), new Set(['tier-1'])))
      .thenEvents(received('m2'), changed('resolved', 'open', 'visitor_message', 2), teamChanged(team('tier-1'), null, 'archived'));
    expect(after).toMatchObject({ assignee: agent('bo'), team: null });
  });
});

describe('waking', () => {
  const archived = new Set(['bo']);
  const left = unassigned(agent('bo'), team('tier-1'), 'archived');
  const pending = [opened, received('m1'), assigned(agent('bo'), team('tier-1')), changed('open', 'pending')];
  const asleep = [opened, received('m1'), assigned(agent('bo'), team('tier-1')), snoozed('open', TOMORROW)];

  test('keeps the assignee', () => {
    conversation(...pending)
      .when(receive(message('m2'), new Set(['someone-else'])))
      .thenEvents(received('m2'), changed('pending', 'open', 'visitor_message'));
  });
  test.each([
    [
      'pending',
      'by the visitor',
      pending,
      receive(message('m2'), archived),
      [received('m2'), changed('pending', 'open', 'visitor_message')],
    ],
    ['pending', 'by setting the status', pending, setStatus('open', 'agent', archived), [changed('pending', 'open')]],
    ['pending', 'by a reply', pending, reply(message('m2'), eve, 'open', archived), [sent('m2'), changed('pending', 'open')]],
    ['pending', 'by a note', pending, addNote(message('m2'), eve, 'open', archived), [noted('m2'), changed('pending', 'open')]],
    [
      'snoozed',
      'by the visitor',
      asleep,
      receive(message('m2'), archived),
      [received('m2'), changed('snoozed', 'open', 'visitor_message')],
    ],
    ['snoozed', 'by its timer', asleep, wake(3, Date.parse(TOMORROW), archived), [changed('snoozed', 'open', 'snooze_elapsed')]],
  ] as const)('a %s conversation %s takes it from an archived assignee', (_, __, history, decision, events) => {
    conversation(...history)
      .when(decision)
      .thenEvents(...events, left);
  });
  test('to pending takes it from nobody', () => {
    conversation(...asleep)
      .when(setStatus('pending', 'agent', archived))
      .thenEvents(changed('snoozed', 'pending'));
  });
});

describe('snoozing', () => {
  test.each([
    ['the present instant', new Date(NOW).toISOString()],
    ['the past', instant(0)],
  ])('until %s is refused', (_, until) => {
    conversation(...IN.open)
      .when(snooze(until, NOW))
      .thenRefused('snooze_in_past');
  });

  test('until the same day of the next year is the most', () => {
    const most = new Date(NOW);
    most.setUTCFullYear(most.getUTCFullYear() + 1);
    conversation(...IN.open)
      .when(snooze(most.toISOString(), NOW))
      .thenEvents(snoozed('open', most.toISOString()));
    conversation(...IN.open)
      .when(snooze(new Date(most.getTime() + 1).toISOString(), NOW))
      .thenRefused('snooze_too_far');
  });

  test('keeps the instant in UTC, however it was written', () => {
    conversation(...IN.open)
      .when(snooze('2026-06-01T09:00:00+02:00', NOW))
      .thenEvents(snoozed('open', '2026-06-01T07:00:00.000Z'));
  });

  test('until the same instant again changes nothing, even when it is past', () => {
    conversation(...IN.snoozed)
      .when(snooze(TOMORROW, NOW))
      .thenNothing();
    conversation(...IN.snoozed)
      .when(snooze(TOMORROW, Date.parse(NEXT_WEEK)))
      .thenNothing();
  });

  test('until the next reply waits for the visitor alone', () => {
    const waiting = [...IN.open, snoozed('open', 'next_reply')];
    conversation(...IN.open)
      .when(snooze('next_reply', NOW))
      .thenEvents(snoozed('open', 'next_reply'));
    conversation(...waiting)
      .when(wake(2, Number.MAX_SAFE_INTEGER))
      .thenNothing();
    conversation(...waiting)
      .when(receive(message('m2')))
      .thenEvents(received('m2'), changed('snoozed', 'open', 'visitor_message'));
  });
});

describe('a due snooze', () => {
  test('does not wake before its time', () => {
    conversation(...IN.snoozed)
      .when(wake(2, Date.parse(TOMORROW) - 1))
      .thenNothing();
  });
  test('wakes only the snooze that set the timer', () => {
    conversation(...IN.snoozed, snoozed('snoozed', NEXT_WEEK))
      .when(wake(2, Date.parse(NEXT_WEEK)))
      .thenNothing();
    conversation(...IN.snoozed, snoozed('snoozed', NEXT_WEEK))
      .when(wake(3, Date.parse(NEXT_WEEK)))
      .thenEvents(changed('snoozed', 'open', 'snooze_elapsed'));
  });
  test('is void once the conversation has left snoozed', () => {
    conversation(...IN.snoozed, changed('snoozed', 'pending'))
      .when(wake(2, Date.parse(TOMORROW)))
      .thenNothing();
  });
  test('survives what does not leave snoozed', () => {
    conversation(...IN.snoozed, sent('m2'), noted('m3'), { type: 'TagsAdded', data: { tags: ['a'] } })
      .when(wake(2, Date.parse(TOMORROW)))
      .thenEvents(changed('snoozed', 'open', 'snooze_elapsed'));
  });
});

describe('tags', () => {
  const tagged = [...IN.open, { type: 'TagsAdded', data: { tags: ['billing', 'urgent'] } }] as const;

  test('are added once, also within one request', () => {
    conversation(...tagged)
      .when(addTags(['urgent', 'late', 'late']))
      .thenEvents({ type: 'TagsAdded', data: { tags: ['late'] } });
  });
  test('that are there already change nothing', () => {
    conversation(...tagged)
      .when(addTags(['urgent', 'billing']))
      .thenNothing();
  });
  test('that differ in case are two', () => {
    conversation(...tagged)
      .when(addTags(['Urgent']))
      .thenEvents({ type: 'TagsAdded', data: { tags: ['Urgent'] } });
  });
  test('are removed by name', () => {
    const after = conversation(...tagged)
      .when(removeTag('billing'))
      .thenEvents({ type: 'TagRemoved', data: { tag: 'billing' } });
    expect(after.tags).toEqual(['urgent']);
  });
  test('are stored in their typed form, and one tag however they are spelled', () => {
    conversation(...tagged)
      .when(addTags(['urgent\u00a0', ' bill\u200bing', ' cafe\u0301', 'caf\u00e9']))
      .thenEvents({ type: 'TagsAdded', data: { tags: ['caf\u00e9'] } });
    conversation(...tagged)
      .when(removeTag(' billing\u00a0'))
      .thenEvents({ type: 'TagRemoved', data: { tag: 'billing' } });
  });
  test('that an earlier build stored in several spellings are one, and removed together', () => {
    const stored = ['vip', 'vip ', 'vip\u00a0', 'cafe\u0301', '..'];
    const old = conversation(...IN.open, { type: 'TagsAdded', data: { tags: stored } });
    old.when(addTags(['vip', 'caf\u00e9'])).thenNothing();
    const after = old
      .when(removeTag('vip'))
      .thenEvents(...['vip', 'vip ', 'vip\u00a0'].map((tag) => ({ type: 'TagRemoved' as const, data: { tag } })));
    expect(after.tags).toEqual(['cafe\u0301', '..']);
    old.when(removeTag('caf\u00e9')).thenEvents({ type: 'TagRemoved', data: { tag: 'cafe\u0301' } });
    old.when(removeTag('..')).thenEvents({ type: 'TagRemoved', data: { tag: '..' } });
  });
  test('that are not there need no removing', () => {
    conversation(...tagged)
      .when(removeTag('late'))
      .thenNothing();
  });
  test(`are at most ${MAX_TAGS}`, () => {
    const names = (n: number) => Array.from({ length: n }, (_, i) => `tag-${i}`);
    conversation(...IN.open)
      .when(addTags(names(MAX_TAGS)))
      .thenEvents({ type: 'TagsAdded', data: { tags: names(MAX_TAGS) } });
    conversation(...IN.open)
      .when(addTags(names(MAX_TAGS + 1)))
      .thenRefused('limit_exceeded');
  });
});

describe('the fields of its own', () => {
  const described = [
    ...IN.open,
    { type: 'SubjectChanged', data: { subject: sealed('s') } },
    { type: 'CustomAttributesChanged', data: { set: { a: sealed('1'), b: sealed('2') }, removed: [] } },
  ] as const;

  test('the same again change nothing', () => {
    conversation(...described)
      .when(changeSubject(sealed('s')))
      .thenNothing();
    conversation(...described)
      .when(changePriority('normal'))
      .thenNothing();
    conversation(...described)
      .when(changeInbox('billing'))
      .thenNothing();
    conversation(...described)
      .when(changeCustomAttributes({ a: sealed('1'), c: null }))
      .thenNothing();
  });

  test('a subject is cleared by null', () => {
    const after = conversation(...described)
      .when(changeSubject(null))
      .thenEvents({ type: 'SubjectChanged', data: { subject: null } });
    expect(after.subject).toBeNull();
  });

  test('attributes are merged, and null removes', () => {
    const after = conversation(...described)
      .when(changeCustomAttributes({ a: null, b: sealed('3'), c: sealed('4') }))
      .thenEvents({ type: 'CustomAttributesChanged', data: { set: { b: sealed('3'), c: sealed('4') }, removed: ['a'] } });
    expect(after.customAttributes).toEqual({ b: sealed('3'), c: sealed('4') });
  });

  test(`attributes are at most ${MAX_ATTRIBUTES}, counted after the removals`, () => {
    const full = Object.fromEntries(Array.from({ length: MAX_ATTRIBUTES }, (_, i) => [`k${i}`, sealed('v')]));
    const at: ConversationEvent = { type: 'CustomAttributesChanged', data: { set: full, removed: [] } };
    conversation(...IN.open, at)
      .when(changeCustomAttributes({ one: sealed('more') }))
      .thenRefused('limit_exceeded');
    conversation(...IN.open, at)
      .when(changeCustomAttributes({ one: sealed('more'), k0: null }))
      .thenEvents({ type: 'CustomAttributesChanged', data: { set: { one: sealed('more') }, removed: ['k0'] } });
  });
});

describe('rating', () => {
  const rated = (rating: number, episode: number, comment?: Sealed): ConversationEvent => ({
    type: 'ConversationRated',
    data: { rating, ...(comment === undefined ? {} : { comment }), episode },
  });

  test.each(['open', 'pending', 'snoozed'] as const)('needs an ended episode: %s in the first', (status) => {
    conversation(...IN[status])
      .when(rate(5))
      .thenRefused('no_ended_episode');
  });
  test.each(['resolved', 'closed'] as const)('goes to the episode that just ended: %s', (status) => {
    conversation(...IN[status])
      .when(rate(4, sealed('ok')))
      .thenEvents(rated(4, 1, sealed('ok')));
  });
  test('goes to the latest ended episode while the next one runs', () => {
    const second = [...IN.resolved, changed('resolved', 'open', 'agent', 2)];
    conversation(...second)
      .when(rate(2))
      .thenEvents(rated(2, 1));
    conversation(...second, snoozed('open', TOMORROW))
      .when(rate(2))
      .thenEvents(rated(2, 1));
    conversation(...second, changed('open', 'closed', 'agent', 2))
      .when(rate(2))
      .thenEvents(rated(2, 2));
  });
  test('may change, and is one per episode', () => {
    const once = [...IN.resolved, rated(4, 1, sealed('ok'))];
    conversation(...once)
      .when(rate(4, sealed('ok')))
      .thenNothing();
    conversation(...once)
      .when(rate(5, sealed('ok')))
      .thenEvents(rated(5, 1, sealed('ok')));
  });
  test('keeps the comment that it says nothing of, and null removes it', () => {
    const once = [...IN.resolved, rated(4, 1, sealed('ok'))];
    conversation(...once)
      .when(rate(5))
      .thenEvents(rated(5, 1, sealed('ok')));
    conversation(...once)
      .when(rate(4))
      .thenNothing();
    const after = conversation(...once)
      .when(rate(4, null))
      .thenEvents(rated(4, 1));
    expect(after.rating).toEqual({ rating: 4, comment: null, episode: 1 });
    conversation(...IN.resolved)
      .when(rate(4, null))
      .thenEvents(rated(4, 1));
  });
  test('of another episode begins without a comment', () => {
    conversation(...IN.resolved, rated(4, 1, sealed('ok')), changed('resolved', 'open', 'agent', 2), changed('open', 'closed', 'agent', 2))
      .when(rate(4))
      .thenEvents(rated(4, 2));
  });
});

describe('episodes', () => {
  test('run from opening or reopening to resolving or closing', () => {
    const history: ConversationEvent[] = [opened, received('m1')];
    const episodes: (readonly [number, boolean])[] = [];
    const ask = (decision: Decision): void => {
      history.push(...decision(conversation(...history).state));
      const { episode, episodeEnded } = conversation(...history).state;
      episodes.push([episode, episodeEnded]);
    };
    ask(setStatus('pending', 'agent'));
    ask(setStatus('resolved', 'agent'));
    ask(receive(message('m2')));
    ask(snooze(TOMORROW, NOW));
    ask(setStatus('resolved', 'agent'));
    ask(setStatus('open', 'agent'));
    ask(setStatus('resolved', 'agent'));
    ask(setStatus('closed', 'agent'));
    expect(episodes).toEqual([
      [1, false],
      [1, true],
      [2, false],
      [2, false],
      [2, true],
      [3, false],
      [3, true],
      [3, true],
    ]);
  });
});

describe('messages', () => {
  test('are counted, the last one is kept, and who spoke is told', () => {
    const kinds = (...history: readonly ConversationEvent[]): [number, Conversation['lastMessage']] => {
      const { messageCount, lastMessage } = conversation(opened, ...history).state;
      return [messageCount, lastMessage];
    };
    expect(kinds(received('m1'))).toEqual([1, { ...message('m1'), type: 'visitor', createdAt: instant(1) }]);
    expect(kinds(received('m1'), sent('m2'))).toEqual([2, { ...message('m2'), author: eve, type: 'agent', createdAt: instant(2) }]);
    expect(kinds(sent('m1', rule))).toEqual([1, { ...message('m1'), author: rule, type: 'automation', createdAt: instant(1) }]);
    expect(kinds(noted('m1'))).toEqual([1, { ...message('m1'), author: eve, type: 'note', createdAt: instant(1) }]);
  });

  test('are counted apart for the visitor, who is told of no note', () => {
    const shown = (...history: readonly ConversationEvent[]) => conversation(opened, received('m1'), ...history).state.shown;
    const first = { revision: 1, messageCount: 1, lastMessage: { ...message('m1'), type: 'visitor', createdAt: instant(1) } };
    expect(shown()).toEqual({ ...first, updatedAt: instant(1) });
    expect(shown(noted('m2'), { type: 'TagsAdded', data: { tags: ['a'] } })).toEqual({ ...first, updatedAt: instant(1) });
    expect(shown(noted('m2'), { type: 'SubjectChanged', data: { subject: sealed('s') } })).toEqual({
      ...first,
      revision: 2,
      updatedAt: instant(3),
    });
    expect(shown(noted('m2'), sent('m3'))).toMatchObject({ revision: 2, messageCount: 2, lastMessage: { messageId: 'm3' } });
  });

  test.each([
    ['open', 'is told of no snooze', [1, 1, 1]],
    ['pending', 'is told that it is open again', [2, 3, 3]],
  ] as const)('a visitor of a conversation that was %s %s, nor of its end', (status, _, revisions) => {
    const before = conversation(opened, received('m1'));
    const events: ConversationEvent[] = [
      ...setStatus(status, 'agent')(before.state),
      { type: 'ConversationSnoozed', data: { from: status, until: TOMORROW, reason: 'agent' } },
      { type: 'ConversationStatusChanged', data: { from: 'snoozed', to: 'open', reason: 'snooze_elapsed', episode: 1 } },
    ];
    const counted = events.map((__, i) => conversation(opened, received('m1'), ...events.slice(0, i + 1)).state.shown.revision);
    expect(counted).toEqual(revisions.slice(revisions.length - counted.length));
  });

  test('carry their attachments', () => {
    const facts: MessageFacts = { messageId: 'm2', contentType: 'attachment', content: sealed('here'), attachments: sealed('files') };
    const after = conversation(...IN.open)
      .when(receive(facts))
      .thenEvents({ type: 'MessageReceived', data: facts });
    expect(after.lastMessage).toMatchObject({ contentType: 'attachment', attachments: sealed('files') });
  });
});
