import { Inject, Injectable } from '@nestjs/common';
import { Command } from '@nestjs/cqrs';
import { aside, type CommandContext, everAgain, isExpected, step } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { changeDefaultInbox, organizationAggregate, reinstateInbox, retireInbox } from '../organizations/organization.js';
import { ThreadlogError } from '../errors.js';
import { derivedId } from '../ids.js';
import { AssigneeReader } from '../team/assignee.reader.js';
import {
  archiveInbox,
  changeInboxFields,
  createInbox,
  type Inbox,
  inboxAggregate,
  type InboxChanges,
  type InboxEvent,
  unarchiveInbox,
} from './inbox.js';

/** Attempts at an inbox that other requests keep changing, before the client gets an error. */
const ATTEMPTS = 8;

/** The answer of every command on an inbox. */
export interface InboxChanged extends Transacted<Inbox, InboxEvent> {
  readonly id: string;
  readonly isDefault: boolean;
}

/** The steps of commands on inboxes, which write to the inbox's stream and to its organization's. */
@Injectable()
export class InboxWriter {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(AssigneeReader) private readonly assignees: AssigneeReader,
  ) {}

  /** @throws ThreadlogError id_taken, unknown_agent */
  async create(
    context: CommandContext,
    id: string,
    given: InboxChanges & { readonly name: string },
    isDefault: boolean,
  ): Promise<InboxChanged> {
    const done = await this.transactor.transact(
      inboxAggregate,
      id,
      context,
      (state) => {
        // Another command created it: a retry of that command is answered from the log.
        if (state.exists) throw new ThreadlogError('id_taken');
        return createInbox(given)(state);
      },
      async (state) => {
        if (!state.exists) await this.assignees.requireAgents(context.organizationId, given.assignment?.agentIds ?? []);
      },
    );
    // A new inbox becomes the default only on request, so a repeated request gets the first answer.
    return isDefault ? this.makeDefault(context, { ...done, id, isDefault }) : { ...done, id, isDefault };
  }

  /** @throws ThreadlogError not_found, resource_archived, unknown_agent, default_inbox_required */
  async change(context: CommandContext, id: string, changes: InboxChanges, isDefault: boolean | undefined): Promise<InboxChanged> {
    if (isDefault === false && (await this.isDefault(context.organizationId, id)))
      throw new ThreadlogError('default_inbox_required', 'make another inbox the default instead');
    const done = await this.transactor.transact(
      inboxAggregate,
      id,
      context,
      (state) => changeInboxFields(changes)(state),
      async (state) => {
        // First the error of an inbox that cannot be changed, whatever its new members are.
        if (state.exists && !state.archived)
          await this.assignees.requireAgents(context.organizationId, changes.assignment?.agentIds ?? [], state.assignment.agentIds);
      },
    );
    if (isDefault === true) return this.makeDefault(context, { ...done, id, isDefault });
    return { ...done, id, isDefault: isDefault ?? (await this.isDefault(context.organizationId, id)) };
  }

  /** @throws ThreadlogError not_found, revision_mismatch, default_inbox_required */
  async archive(context: CommandContext, id: string): Promise<InboxChanged> {
    const { organizationId, ifMatch } = context;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      // Checked before the organization is told: a refused request must change nothing.
      const known = await this.transactor.load(inboxAggregate, organizationId, id);
      if (known === undefined) throw new ThreadlogError('not_found');
      const { revision, state: before } = known;
      if (!isExpected(ifMatch, revision)) throw new ThreadlogError('revision_mismatch', `the revision is ${revision}`);
      if (!before.archived)
        await this.transactor.transact(organizationAggregate, organizationId, step(context), (state) => retireInbox(id, revision)(state));
      try {
        // At the revision that the organization was told: an inbox that was unarchived since must not be archived by this request.
        const done = await this.transactor.transact(inboxAggregate, id, { ...context, ifMatch: revision }, (state) =>
          archiveInbox()(state),
        );
        return { ...done, id, isDefault: false };
      } catch (error) {
        if (ifMatch !== undefined || !(error instanceof ThreadlogError) || error.code !== 'revision_mismatch') throw error;
      }
    }
    throw new ThreadlogError('concurrent_changes', `gave up after ${ATTEMPTS} attempts`, { retryAfterSeconds: 1 });
  }

  /** Unarchives the inbox, which may become the default again. @throws ThreadlogError not_found, revision_mismatch */
  async unarchive(context: CommandContext, id: string): Promise<InboxChanged> {
    const { organizationId } = context;
    const done = await this.transactor.transact(inboxAggregate, id, context, (state) => unarchiveInbox()(state));
    // Also when this command had nothing to do: an earlier command may have stopped between the two streams.
    const backAt = done.events[0]?.revision ?? (await this.lastUnarchived(organizationId, id));
    if (backAt === undefined) return { ...done, id, isDefault: await this.isDefault(organizationId, id) };
    const { state, position } = await this.transactor.transact(organizationAggregate, organizationId, aside(context), (organization) =>
      reinstateInbox(id, backAt)(organization),
    );
    return { ...done, id, isDefault: state.defaultInboxId === id, position: position > done.position ? position : done.position };
  }

  private async lastUnarchived(organizationId: string, id: string): Promise<number | undefined> {
    let last: number | undefined;
    for await (const { type, revision } of this.transactor.history(inboxAggregate, organizationId, id))
      if (type === 'InboxUnarchived') last = revision;
    return last;
  }

  /** Runs after the inbox's own events, so that the default inbox always exists; answers the later of the two positions. */
  private async makeDefault(context: CommandContext, done: InboxChanged): Promise<InboxChanged> {
    const { position } = await this.transactor.transact(organizationAggregate, context.organizationId, aside(context), (state) =>
      changeDefaultInbox(done.id, done.revision)(state),
    );
    return position > done.position ? { ...done, position } : done;
  }

  private async isDefault(organizationId: string, id: string): Promise<boolean> {
    return (await this.transactor.load(organizationAggregate, organizationId, organizationId))?.state.defaultInboxId === id;
  }
}

export class CreateInbox extends Command<InboxChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string | undefined,
    readonly given: InboxChanges & { readonly name: string },
    readonly isDefault: boolean,
  ) {
    super();
  }
}

/** Sets the named fields; `isDefault: true` takes the default from the present default inbox. */
export class ChangeInbox extends Command<InboxChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly changes: InboxChanges,
    readonly isDefault: boolean | undefined,
  ) {
    super();
  }
}

export class ArchiveInbox extends Command<InboxChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

/** @throws ThreadlogError not_found */
export class UnarchiveInbox extends Command<InboxChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

const handled = handledBy(InboxWriter);

/** The handlers of this file, for the module. */
export const inboxCommandHandlers = [
  handled(CreateInbox, (writer, { context, id = derivedId('inbox', context.commandId), given, isDefault }) =>
    writer.create(everAgain(context), id, given, isDefault),
  ),
  handled(ChangeInbox, (writer, { context, id, changes, isDefault }) => writer.change(context, id, changes, isDefault)),
  handled(ArchiveInbox, (writer, { context, id }) => writer.archive(context, id)),
  handled(UnarchiveInbox, (writer, { context, id }) => writer.unarchive(context, id)),
];
