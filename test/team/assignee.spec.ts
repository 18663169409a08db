import {
  archiveAssignee,
  type AssigneeDecision,
  assigneeAggregate,
  type AssigneeEvent,
  changeAgent,
  changeTeam,
  createAgent,
  createTeam,
  unarchiveAssignee,
} from '../../src/team/assignee.js';
import { given, instant } from '../support/given.js';

const ada: AssigneeEvent = { type: 'AgentCreated', data: { name: 'Ada', email: 'ada@example.com', availability: 'online' } };
const team: AssigneeEvent = { type: 'TeamCreated', data: { name: 'First line', agentIds: ['a', 'b'] } };
const archived: AssigneeEvent = { type: 'AssigneeArchived', data: {} };
const after = (...events: AssigneeEvent[]) => given(assigneeAggregate, ...events);

describe('an agent', () => {
  it('is made, online unless said otherwise', () => {
    const state = after()
      .when(createAgent({ name: 'Ada', email: 'ada@example.com' }))
      .thenEvents(ada);
    expect(state).toEqual({
      exists: true,
      archived: false,
      type: 'agent',
      name: 'Ada',
      email: 'ada@example.com',
      availability: 'online',
      agentIds: [],
      createdAt: instant(0),
      updatedAt: instant(0),
    });
    after()
      .when(createAgent({ name: 'Bob', email: null, availability: 'away' }))
      .thenEvents({ type: 'AgentCreated', data: { name: 'Bob', availability: 'away' } });
  });

  it('changes only the named fields that differ, and null clears', () => {
    const state = after(ada)
      .when(changeAgent({ name: 'Ada', email: null, availability: 'away' }))
      .thenEvents({ type: 'AgentChanged', data: { email: null, availability: 'away' } });
    expect(state).toMatchObject({ name: 'Ada', email: null, availability: 'away', updatedAt: instant(1) });
    after(ada)
      .when(changeAgent({ name: undefined }))
      .thenNothing();
  });
});

describe('a team', () => {
  it('is made of agents', () => {
    const state = after()
      .when(createTeam({ name: 'First line', agentIds: ['a', 'b'] }))
      .thenEvents(team);
    expect(state).toMatchObject({ type: 'team', name: 'First line', agentIds: ['a', 'b'] });
  });

  it('changes only the named fields that differ', () => {
    after(team)
      .when(changeTeam({ name: 'Second line', agentIds: ['a', 'b'] }))
      .thenEvents({ type: 'TeamChanged', data: { name: 'Second line' } });
    after(team)
      .when(changeTeam({ agentIds: [] }))
      .thenEvents({ type: 'TeamChanged', data: { agentIds: [] } });
    after(team).when(changeTeam({})).thenNothing();
  });
});

describe('agents and teams', () => {
  it('share one id space, archived ids included', () => {
    for (const taken of [[ada], [team], [ada, archived]]) {
      after(...taken)
        .when(createAgent({ name: 'Eve' }))
        .thenNothing();
      after(...taken)
        .when(createTeam({ name: 'Eve', agentIds: [] }))
        .thenNothing();
    }
  });

  it.each<[string, AssigneeEvent[], AssigneeDecision]>([
    ['no agent', [], changeAgent({ name: 'Eve' })],
    ['a team as an agent', [team], changeAgent({ name: 'Eve' })],
    ['an agent as a team', [ada], changeTeam({ name: 'Eve' })],
    ['an archived team as an agent', [team, archived], changeAgent({ name: 'Eve' })],
  ])('does not change %s', (_, history, decision) => {
    after(...history)
      .when(decision)
      .thenRefused('not_found');
  });

  it('archives each under its own type', () => {
    expect(after(ada).when(archiveAssignee('agent')).thenEvents(archived)).toMatchObject({ archived: true, name: 'Ada' });
    expect(after(team).when(archiveAssignee('team')).thenEvents(archived)).toMatchObject({ archived: true, type: 'team' });
    for (const [made, type] of [
      [ada, 'agent'],
      [team, 'team'],
    ] as const) {
      expect(after(made, archived).when(unarchiveAssignee(type)).thenEvents({ type: 'AssigneeUnarchived', data: {} })).toMatchObject({
        archived: false,
        type,
      });
      after(made).when(unarchiveAssignee(type)).thenNothing();
      after(made, archived)
        .when(unarchiveAssignee(type === 'agent' ? 'team' : 'agent'))
        .thenRefused('not_found');
    }
    after().when(unarchiveAssignee('agent')).thenRefused('not_found');
    after(ada).when(archiveAssignee('team')).thenRefused('not_found');
    after(team).when(archiveAssignee('agent')).thenRefused('not_found');
    after().when(archiveAssignee('agent')).thenRefused('not_found');
  });

  it('changes nothing that is archived', () => {
    after(ada, archived)
      .when(changeAgent({ name: 'Ada' }))
      .thenRefused('resource_archived');
    after(team, archived)
      .when(changeTeam({ agentIds: [] }))
      .thenRefused('resource_archived');
  });
});
