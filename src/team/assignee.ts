import { z } from 'zod';
import type { Aggregate } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';
import { ThreadlogError } from '../errors.js';

/*
 * Agents and teams. Both have the same kind of stream, since an assigneeId names either: an agent and a team never share an id.
 */
export const AVAILABILITIES = ['online', 'away'] as const;
/** An agent who is away gets no automatic assignments. */
export type Availability = (typeof AVAILABILITIES)[number];

export interface AgentChanges {
  readonly name?: string;
  readonly email?: string | null;
  readonly availability?: Availability;
}

export interface TeamChanges {
  readonly name?: string;
  readonly agentIds?: readonly string[];
}

export type AssigneeEvent =
  | {
      readonly type: 'AgentCreated';
      readonly data: { readonly name: string; readonly email?: string; readonly availability: Availability };
    }
  /** Only the fields to change; `null` clears a field. */
  | { readonly type: 'AgentChanged'; readonly data: AgentChanges }
  | { readonly type: 'TeamCreated'; readonly data: { readonly name: string; readonly agentIds: readonly string[] } }
  | { readonly type: 'TeamChanged'; readonly data: TeamChanges }
  | { readonly type: 'AssigneeArchived'; readonly data: Record<string, never> }
  | { readonly type: 'AssigneeUnarchived'; readonly data: Record<string, never> };

/** An agent or a team; the fields of the other type keep their initial values. */
export interface AssigneeState {
  readonly exists: boolean;
  readonly archived: boolean;
  readonly type: 'agent' | 'team';
  readonly name: string;
  readonly email: string | null;
  readonly availability: Availability;
  /** In the given order. Keeps an agent who is archived later, but assigns nothing to that agent. */
  readonly agentIds: readonly string[];
  readonly createdAt: string;
  readonly updatedAt: string;
}

const availability = z.enum(AVAILABILITIES);
const agentIds = z.array(z.string());

export const assigneeAggregate: Aggregate<AssigneeState, AssigneeEvent> = {
  kind: 'assignee',
  codec: schemaCodec<AssigneeEvent>({
    AgentCreated: [z.object({ name: z.string(), email: z.string().optional(), availability })],
    AgentChanged: [
      z.object({ name: z.string().optional(), email: z.string().nullable().optional(), availability: availability.optional() }),
    ],
    TeamCreated: [z.object({ name: z.string(), agentIds })],
    TeamChanged: [z.object({ name: z.string().optional(), agentIds: agentIds.optional() })],
    AssigneeArchived: [z.object({})],
    AssigneeUnarchived: [z.object({})],
  }),
  initial: {
    exists: false,
    archived: false,
    type: 'agent',
    name: '',
    email: null,
    availability: 'online',
    agentIds: [],
    createdAt: '',
    updatedAt: '',
  },
  evolve: (before, event) => {
    const at = event.metadata.occurredAt;
    switch (event.type) {
      case 'AgentCreated':
        return { ...before, ...event.data, exists: true, type: 'agent', createdAt: at, updatedAt: at };
      case 'TeamCreated':
        return { ...before, ...event.data, exists: true, type: 'team', createdAt: at, updatedAt: at };
      case 'AgentChanged':
      case 'TeamChanged':
        return { ...before, ...event.data, updatedAt: at };
      case 'AssigneeArchived':
        return { ...before, archived: true, updatedAt: at };
      case 'AssigneeUnarchived':
        return { ...before, archived: false, updatedAt: at };
    }
  },
};

export type AssigneeDecision = (a: AssigneeState) => readonly AssigneeEvent[];

/** Returns no event when the id is taken: callers that need a new agent must check. */
export function createAgent(given: AgentChanges & { readonly name: string }): AssigneeDecision {
  const { name, email, availability: asked = 'online' } = given;
  return (a) =>
    a.exists
      ? []
      : [{ type: 'AgentCreated', data: { name, ...(email === undefined || email === null ? {} : { email }), availability: asked } }];
}

/** Returns no event when the id is taken, like createAgent. */
export function createTeam(given: { readonly name: string; readonly agentIds: readonly string[] }): AssigneeDecision {
  return (a) => (a.exists ? [] : [{ type: 'TeamCreated', data: { name: given.name, agentIds: given.agentIds } }]);
}

/** Appends only the differences. @throws ThreadlogError not_found, also for a team; resource_archived */
export function changeAgent(changes: AgentChanges): AssigneeDecision {
  return changing('agent', (a) => {
    const differing = Object.fromEntries(
      Object.entries(changes).filter(([field, value]) => value !== undefined && value !== a[field as keyof AgentChanges]),
    );
    return Object.keys(differing).length === 0 ? [] : [{ type: 'AgentChanged', data: differing }];
  });
}

/** Appends only the differences. @throws ThreadlogError not_found, also for an agent; resource_archived */
export function changeTeam(changes: TeamChanges): AssigneeDecision {
  return changing('team', (a) => {
    const differing: TeamChanges = {
      ...(changes.name === undefined || changes.name === a.name ? {} : { name: changes.name }),
      ...(changes.agentIds === undefined || JSON.stringify(changes.agentIds) === JSON.stringify(a.agentIds)
        ? {}
        : { agentIds: changes.agentIds }),
    };
    return Object.keys(differing).length === 0 ? [] : [{ type: 'TeamChanged', data: differing }];
  });
}

/** @throws ThreadlogError not_found, also when the id has the other type */
export function archiveAssignee(type: 'agent' | 'team'): AssigneeDecision {
  return (a) => {
    if (!a.exists || a.type !== type) throw new ThreadlogError('not_found');
    return a.archived ? [] : [{ type: 'AssigneeArchived', data: {} }];
  };
}

/** @throws ThreadlogError not_found, also when the id has the other type */
export function unarchiveAssignee(type: 'agent' | 'team'): AssigneeDecision {
  return (a) => {
    if (!a.exists || a.type !== type) throw new ThreadlogError('not_found');
    return a.archived ? [{ type: 'AssigneeUnarchived', data: {} }] : [];
  };
}

function changing(type: 'agent' | 'team', decision: AssigneeDecision): AssigneeDecision {
  return (a) => {
    if (!a.exists || a.type !== type) throw new ThreadlogError('not_found');
    if (a.archived) throw new ThreadlogError('resource_archived');
    return decision(a);
  };
}
