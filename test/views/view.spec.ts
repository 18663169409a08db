import { PRIORITIES, STATUSES } from '../../src/conversations/conversation.js';
import { type ConversationFilter, SORTS } from '../../src/conversations/conversation.list.js';
import type { Role } from '../../src/security/roles.js';
import {
  archiveView,
  changeView,
  conversationFilter,
  createView,
  isVisible,
  unarchiveView,
  viewAggregate,
  type ViewCaller,
  type ViewDecision,
  type ViewEvent,
  viewFilter,
} from '../../src/views/view.js';
import { given, instant } from '../support/given.js';

const ada = { type: 'agent', id: 'ada' } as const;
const as = (id: string, role: Role = 'agent'): ViewCaller => ({ self: { type: 'agent', id }, role });
const key = (id: string, role: Role = 'agent'): ViewCaller => ({ self: { type: 'apiKey', id }, role });
const fields = { name: 'Urgent', filter: { priority: ['urgent'] }, sort: { by: 'createdAt', order: 'asc' }, shared: false } as const;
const made: ViewEvent = { type: 'ViewCreated', data: { ...fields, owner: ada } };
const shared: ViewEvent = { type: 'ViewChanged', data: { shared: true } };
const archived: ViewEvent = { type: 'ViewArchived', data: {} };
const after = (...events: ViewEvent[]) => given(viewAggregate, ...events);

/** Every filter there is: a new one fails to compile here until it stands in the codec. */
const EVERYTHING: Required<ConversationFilter> = {
  status: STATUSES,
  priority: PRIORITIES,
  teamId: ['team-1'],
  inboxId: ['inbox-1', 'inbox-2'],
  assigneeId: ['none', 'ada'],
  visitorId: ['visitor-1'],
  companyId: ['acme'],
  tag: ['vip'],
  tagMatch: 'all',
  createdAfter: Date.parse(instant(1)),
  createdBefore: Date.parse(instant(2)),
  updatedAfter: Date.parse(instant(3)),
  updatedBefore: Date.parse(instant(4)),
  customAttributes: { a: '1', b: '2' },
};

describe('a view', () => {
  it('is made once, and belongs to who made it', () => {
    const state = after().when(createView(fields, ada)).thenEvents(made);
    expect(state).toEqual({ ...fields, exists: true, archived: false, owner: ada, createdAt: instant(0), updatedAt: instant(0) });
    after(made, archived)
      .when(createView({ ...fields, name: 'Other' }, { type: 'agent', id: 'bo' }))
      .thenNothing();
  });

  it.each(SORTS.flatMap((by) => (['asc', 'desc'] as const).map((order) => [by, order] as const)))(
    'keeps every filter there is, and the sort by %s %s, through its stored form',
    (by, order) => {
      const filter = viewFilter(EVERYTHING);
      const state = after()
        .when(createView({ ...fields, filter, sort: { by, order } }, ada))
        .thenEvents({
          type: 'ViewCreated',
          data: { ...fields, filter, sort: { by, order }, owner: ada },
        });
      expect(state).toMatchObject({ filter, sort: { by, order } });
      expect(conversationFilter(state.filter)).toEqual(EVERYTHING);
    },
  );

  it('is not read by a build that does not know a filter of it: it would find too much', () => {
    expect(() => viewAggregate.codec.decode('ViewChanged', 1, { filter: { status: ['open'], mood: ['bad'] } })).toThrow();
  });

  it('has one form for equal filters', () => {
    const one = viewFilter({ tag: ['b', 'a', 'b'], customAttributes: { b: '2', a: '1' }, createdAfter: Date.parse(instant(1)) });
    expect(JSON.stringify(one)).toBe(`{"tag":["b","a"],"createdAfter":"${instant(1)}","customAttributes":{"a":"1","b":"2"}}`);
    after(made, { type: 'ViewChanged', data: { filter: one } })
      .when(changeView({ filter: viewFilter({ ...conversationFilter(one), customAttributes: { a: '1', b: '2' } }) }, as('ada')))
      .thenNothing();
  });

  it('changes only the named fields that differ', () => {
    const state = after(made)
      .when(changeView({ name: 'Late', filter: { priority: ['urgent'] }, sort: { by: 'createdAt', order: 'desc' } }, as('ada')))
      .thenEvents({ type: 'ViewChanged', data: { name: 'Late', sort: { by: 'createdAt', order: 'desc' } } });
    expect(state).toMatchObject({ name: 'Late', filter: fields.filter, createdAt: instant(0), updatedAt: instant(1) });
    after(made)
      .when(changeView({}, as('ada')))
      .thenNothing();
  });

  it('is archived and comes back, and changes only in between', () => {
    after(made)
      .when(archiveView(as('ada')))
      .thenEvents(archived);
    after(made, archived)
      .when(changeView({ name: 'Urgent' }, as('ada')))
      .thenRefused('resource_archived');
    const back = after(made, archived)
      .when(unarchiveView(as('ada')))
      .thenEvents({ type: 'ViewUnarchived', data: {} });
    expect(back).toMatchObject({ ...fields, archived: false });
    after(made)
      .when(unarchiveView(as('ada')))
      .thenNothing();
  });

  it.each<[string, ViewCaller, boolean, boolean]>([
    ['its owner', as('ada'), true, true],
    ['its owner as an admin', as('ada', 'admin'), true, true],
    ['another agent', as('bo'), false, true],
    ['a key with the id of its owner', key('ada'), false, true],
    ['an admin', key('key-1', 'admin'), false, true],
    ['an analyst', key('key-2', 'analyst'), false, true],
    ['an auditor', key('key-3', 'auditor'), true, true],
  ])('is seen by %s', (_, by, whenPrivate, whenShared) => {
    expect([isVisible(after(made).state, by), isVisible(after(made, shared).state, by)]).toEqual([whenPrivate, whenShared]);
    expect(isVisible(after().state, by)).toBe(false);
  });

  it.each<[string, (by: ViewCaller) => ViewDecision]>([
    ['changes', (by) => changeView({ name: 'Late' }, by)],
    ['archives', archiveView],
    ['brings back', unarchiveView],
  ])('is not there for who may not see it and %s it, closed to who may not write, open to its owner and admins', (_, decision) => {
    after()
      .when(decision(as('ada')))
      .thenRefused('not_found');
    for (const by of [as('bo'), as('bo', 'admin'), key('ada'), key('key-1', 'admin')])
      after(made).when(decision(by)).thenRefused('not_found');
    for (const by of [as('bo'), key('ada')]) after(made, shared).when(decision(by)).thenRefused('forbidden');
    for (const by of [as('ada'), as('bo', 'admin'), key('key-1', 'admin')])
      expect(decision(by)(after(made, shared).state).length).toBe(decision === unarchiveView ? 0 : 1);
  });

  it('is made private by its owner alone: an admin would lose it', () => {
    after(made, shared)
      .when(changeView({ name: 'Late', shared: false }, key('key-1', 'admin')))
      .thenRefused('forbidden');
    after(made, shared)
      .when(changeView({ shared: false }, as('ada')))
      .thenEvents({ type: 'ViewChanged', data: { shared: false } });
    after(made, shared)
      .when(changeView({ shared: true }, key('key-1', 'admin')))
      .thenNothing();
  });
});
