import { Inject, Injectable } from '@nestjs/common';
import { Transactor } from '../commands/transactor.js';
import type { AgentLookup } from '../security/auth.guard.js';
import { ThreadlogError } from '../errors.js';
import { type AssigneeState, assigneeAggregate } from './assignee.js';

/** How old the memory of an agent or a team may be when another resource names it (ms). */
const MAX_AGE_MS = 1_000;
/** Ids that a refusal lists. */
const MOST_NAMED = 10;

/** Finds agents and teams by the id that others name them by, in their streams: a list may be behind. */
@Injectable()
export class AssigneeReader implements AgentLookup {
  constructor(@Inject(Transactor) private readonly transactor: Transactor) {}

  /** Archived ones too; undefined for an id that names none. */
  async assignee(organizationId: string, id: string): Promise<AssigneeState | undefined> {
    return (await this.transactor.load(assigneeAggregate, organizationId, id, MAX_AGE_MS))?.state;
  }

  /** Archived ones too; undefined for an id that names none, or a team. */
  async agent(organizationId: string, id: string): Promise<AssigneeState | undefined> {
    const found = await this.assignee(organizationId, id);
    return found?.type === 'agent' ? found : undefined;
  }

  /**
   * Checks the ids that a list of agents has gained. Those it had before are let be, so that what was read can be written back also after
   * one of them was archived.
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
