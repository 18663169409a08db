import { Inject, Injectable } from '@nestjs/common';
import { Command } from '@nestjs/cqrs';
import { type CommandContext, everAgain } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import { derivedId } from '../ids.js';
import {
  archiveView,
  changeView,
  createView,
  isVisible,
  unarchiveView,
  type View,
  viewAggregate,
  type ViewCaller,
  type ViewDecision,
  type ViewEvent,
  type ViewFields,
  type ViewOwner,
} from './view.js';

/** The answer of every command on a view. */
export interface ViewChanged extends Transacted<View, ViewEvent> {
  readonly id: string;
}

const isRevisionMismatch = (error: unknown) => error instanceof ThreadlogError && error.code === 'revision_mismatch';

@Injectable()
export class ViewWriter {
  constructor(@Inject(Transactor) private readonly transactor: Transactor) {}

  /** @throws ThreadlogError id_taken */
  async create(context: CommandContext, id: string, given: ViewFields, owner: ViewOwner): Promise<ViewChanged> {
    try {
      const done = await this.transactor.transact(viewAggregate, id, context, (state) => {
        // Another command created it: a retry of that command is answered from the log.
        if (state.exists) throw new ThreadlogError('id_taken');
        return createView(given, owner)(state);
      });
      return { ...done, id };
    } catch (error) {
      // A revision would say how often another's private view was changed.
      const taken = isRevisionMismatch(error) && (await this.transactor.load(viewAggregate, context.organizationId, id)) !== undefined;
      throw taken ? new ThreadlogError('id_taken') : error;
    }
  }

  /** @throws ThreadlogError as the decision, and revision_mismatch */
  async write(context: CommandContext, id: string, by: ViewCaller, decision: ViewDecision): Promise<ViewChanged> {
    try {
      return { ...(await this.transactor.transact(viewAggregate, id, context, (state) => decision(state))), id };
    } catch (error) {
      // If-Match is compared before the decision, and its error would reveal that the view exists.
      if (!isRevisionMismatch(error)) throw error;
      const known = await this.transactor.load(viewAggregate, context.organizationId, id);
      throw known === undefined || isVisible(known.state, by) ? error : new ThreadlogError('not_found');
    }
  }
}

/** @throws ThreadlogError id_taken */
export class CreateView extends Command<ViewChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string | undefined,
    readonly given: ViewFields,
    readonly owner: ViewOwner,
  ) {
    super();
  }
}

/** Sets the named fields. @throws ThreadlogError not_found, forbidden, resource_archived */
export class ChangeView extends Command<ViewChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly by: ViewCaller,
    readonly changes: Partial<ViewFields>,
  ) {
    super();
  }
}

/** @throws ThreadlogError not_found, forbidden */
export class ArchiveView extends Command<ViewChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly by: ViewCaller,
  ) {
    super();
  }
}

/** @throws ThreadlogError not_found, forbidden */
export class UnarchiveView extends Command<ViewChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly by: ViewCaller,
  ) {
    super();
  }
}

const handled = handledBy(ViewWriter);

/** The handlers of this file, for the module. */
export const viewCommandHandlers = [
  handled(CreateView, (writer, { context, id = derivedId('view', context.commandId), given, owner }) =>
    writer.create(everAgain(context), id, given, owner),
  ),
  handled(ChangeView, (writer, { context, id, by, changes }) => writer.write(context, id, by, changeView(changes, by))),
  handled(ArchiveView, (writer, { context, id, by }) => writer.write(context, id, by, archiveView(by))),
  handled(UnarchiveView, (writer, { context, id, by }) => writer.write(context, id, by, unarchiveView(by))),
];
