import { Inject, Injectable } from '@nestjs/common';
import { Transactor } from '../commands/transactor.js';
import type { AgentLookup } from '../security/auth.guard.js';
import { ThreadlogError } from '../errors.js';
import { type AssigneeState, assigneeAggregate } from './assignee.js';

/** How old the cached agent or team may be (ms) when another resource names it. */
const MAX_AGE_MS = 1_000;
/** How many ids an error lists. */
const MOST_NAMED = 10;

/** Finds agents and teams by id in their streams, since a list may be behind. */
@Injectable()
export class AssigneeReader implements AgentLookup {
  constructor(@Inject(Transactor) private readonly transactor: Transactor) {}

  /** Includes archived ones; undefined for an unknown id. @param maxAgeMs how old the answer may be */
  async assignee(organizationId: string, id: string, maxAgeMs = MAX_AGE_MS): Promise<AssigneeState | undefined> {
    return (await this.transactor.load(assigneeAggregate, organizationId, id, maxAgeMs))?.state;
  }

  /** Includes archived agents; undefined for an unknown id, or a team. @param maxAgeMs how old the answer may be */
  async agent(organizationId: string, id: string, maxAgeMs = MAX_AGE_MS): Promise<AssigneeState | undefined> {
    const found = await this.assignee(organizationId, id, maxAgeMs);
    return found?.type === 'agent' ? found : undefined;
  }

  /**
   * Checks the ids that are new in a list of agents. Ids that were in the list before are not checked, so that a client can write back the
   * list that it read even after one of the agents was archived.
   * @throws ThreadlogError unknown_agent, resource_archived
   */
  async requireAgents(organizationId: string, asked: readonly string[], before: readonly string[] = []): Promise<void> {
    const had = new Set(before);
    const fresh = asked.filter((id) => !had.has(id));
    const found = await Promise.all(fresh.map((id) => this.agent(organizationId, id)));
    const named = (ids: readonly string[]) => ids.slice(0, MOST_NAMED).join(', ');
    const unknown = fresh.filter((_, index) => found[index] === undefined);
    if (unknown.length > 0) throw new ThreadlogError('unknown_agent', `no agent has the id ${named(unknown)}`);
    const archived = fresh.filter((_, index) => found[index]?.archived === true);
    if (archived.length > 0) throw new ThreadlogError('resource_archived', `archived agents cannot be named anew: ${named(archived)}`);
  }
}
