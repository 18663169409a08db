import { Inject } from '@nestjs/common';
import { Command, CommandHandler, type ICommandHandler } from '@nestjs/cqrs';
import { ApiKeyWriter } from '../api-keys/api-key.writer.js';
import { type CommandContext, everAgain } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import { derivedId } from '../ids.js';
import { AssigneeReader } from './assignee.reader.js';
import {
  type AgentChanges,
  archiveAssignee,
  type AssigneeEvent,
  assigneeAggregate,
  type AssigneeState,
  changeAgent,
  changeTeam,
  createAgent,
  createTeam,
  type TeamChanges,
  unarchiveAssignee,
} from './assignee.js';

/** The answer of every command on an agent or a team. */
export interface AssigneeChanged extends Transacted<AssigneeState, AssigneeEvent> {
  readonly id: string;
}

/** Another command created it: a retry of that command is answered from the log. @throws ThreadlogError id_taken */
function unlessTaken(state: AssigneeState): AssigneeState {
  if (state.exists) throw new ThreadlogError('id_taken', 'agents and teams share one id space');
  return state;
}

/** @throws ThreadlogError id_taken, also when an archived agent or a team has the id */
export class CreateAgent extends Command<AssigneeChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string | undefined,
    readonly given: AgentChanges & { readonly name: string },
  ) {
    super();
  }
}

/** Sets the named fields. @throws ThreadlogError not_found, resource_archived */
export class ChangeAgent extends Command<AssigneeChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly changes: AgentChanges,
  ) {
    super();
  }
}

/** @throws ThreadlogError id_taken, unknown_agent, resource_archived for an agent who is archived */
export class CreateTeam extends Command<AssigneeChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string | undefined,
    readonly given: { readonly name: string; readonly agentIds: readonly string[] },
  ) {
    super();
  }
}

@CommandHandler(CreateTeam)
export class CreateTeamHandler implements ICommandHandler<CreateTeam> {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(AssigneeReader) private readonly assignees: AssigneeReader,
  ) {}

  async execute({ context, id = derivedId('team', context.commandId), given }: CreateTeam): Promise<AssigneeChanged> {
    const done = await this.transactor.transact(
      assigneeAggregate,
      id,
      everAgain(context),
      (state) => createTeam(given)(unlessTaken(state)),
      async (state) => {
        if (!state.exists) await this.assignees.requireAgents(context.organizationId, given.agentIds);
      },
    );
    return { ...done, id };
  }
}

/** Sets the named fields. @throws ThreadlogError not_found, resource_archived, unknown_agent */
export class ChangeTeam extends Command<AssigneeChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly changes: TeamChanges,
  ) {
    super();
  }
}

@CommandHandler(ChangeTeam)
export class ChangeTeamHandler implements ICommandHandler<ChangeTeam> {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(AssigneeReader) private readonly assignees: AssigneeReader,
  ) {}

  async execute({ context, id, changes }: ChangeTeam): Promise<AssigneeChanged> {
    const done = await this.transactor.transact(
      assigneeAggregate,
      id,
      context,
      (state) => changeTeam(changes)(state),
      async (state) => {
        // First the error of a team that cannot be changed, whatever its new members are.
        if (state.exists && state.type === 'team' && !state.archived)
          await this.assignees.requireAgents(context.organizationId, changes.agentIds ?? [], state.agentIds);
      },
    );
    return { ...done, id };
  }
}

/** Archives an agent together with the API keys bound to it, or a team. @throws ThreadlogError not_found */
export class ArchiveAssignee extends Command<AssigneeChanged> {
  constructor(
    readonly context: CommandContext,
    readonly type: 'agent' | 'team',
    readonly id: string,
  ) {
    super();
  }
}

@CommandHandler(ArchiveAssignee)
export class ArchiveAssigneeHandler implements ICommandHandler<ArchiveAssignee> {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(ApiKeyWriter) private readonly apiKeys: ApiKeyWriter,
  ) {}

  async execute({ context, type, id }: ArchiveAssignee): Promise<AssigneeChanged> {
    const done = await this.transactor.transact(assigneeAggregate, id, context, (state) => archiveAssignee(type)(state));
    // After the archiving, since no new key can be bound to an archived agent then. What a crash leaves undone, a job of the reactor finishes.
    if (type === 'agent') await this.apiKeys.revokeOfAgent(context, id);
    return { ...done, id };
  }
}

/** Unarchives an agent, whose keys stay revoked, or a team. @throws ThreadlogError not_found */
export class UnarchiveAssignee extends Command<AssigneeChanged> {
  constructor(
    readonly context: CommandContext,
    readonly type: 'agent' | 'team',
    readonly id: string,
  ) {
    super();
  }
}

@CommandHandler(UnarchiveAssignee)
export class UnarchiveAssigneeHandler implements ICommandHandler<UnarchiveAssignee> {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(ApiKeyWriter) private readonly apiKeys: ApiKeyWriter,
  ) {}

  async execute({ context, type, id }: UnarchiveAssignee): Promise<AssigneeChanged> {
    const done = await this.transactor.transact(
      assigneeAggregate,
      id,
      context,
      (state) => unarchiveAssignee(type)(state),
      async (state) => {
        // Otherwise keys that a crash during the archiving left unrevoked would become valid again with the agent.
        if (type === 'agent' && state.type === 'agent' && state.archived) await this.apiKeys.revokeOfAgent(context, id);
      },
    );
    return { ...done, id };
  }
}

const handled = handledBy(Transactor);

/** The handlers of this file, for the module. */
export const teamCommandHandlers = [
  handled(CreateAgent, async (transactor, { context, id = derivedId('agent', context.commandId), given }) => {
    const decide = (state: AssigneeState) => createAgent(given)(unlessTaken(state));
    return { ...(await transactor.transact(assigneeAggregate, id, everAgain(context), decide)), id };
  }),
  handled(ChangeAgent, async (transactor, { context, id, changes }) => ({
    ...(await transactor.transact(assigneeAggregate, id, context, changeAgent(changes))),
    id,
  })),
  CreateTeamHandler,
  ChangeTeamHandler,
  ArchiveAssigneeHandler,
  UnarchiveAssigneeHandler,
];
