import { Inject, Injectable } from '@nestjs/common';
import { Command, CommandHandler, type ICommandHandler } from '@nestjs/cqrs';
import { type CommandContext, everAgain, type Transacted, Transactor } from '../commands/transactor.js';
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

/** What every command on a view answers. */
export interface ViewChanged extends Transacted<View, ViewEvent> {
  readonly id: string;
}

@Injectable()
export class ViewWriter {
  constructor(@Inject(Transactor) private readonly transactor: Transactor) {}

  /** @throws ThreadlogError id_taken */
  async create(context: CommandContext, id: string, given: ViewFields, owner: ViewOwner): Promise<ViewChanged> {
    const done = await this.transactor.transact(viewAggregate, id, context, (state) => {
      // Another command made it: the one that did is answered from the log when it comes again.
      if (state.exists) throw new ThreadlogError('id_taken');
      return createView(given, owner)(state);
    });
    return { ...done, id };
  }

  /** @throws ThreadlogError what the decision throws, revision_mismatch */
  async write(context: CommandContext, id: string, by: ViewCaller, decision: ViewDecision): Promise<ViewChanged> {
    try {
      return { ...(await this.transactor.transact(viewAggregate, id, context, (state) => decision(state))), id };
    } catch (error) {
      // If-Match is looked at before the decision, and its error tells that there is a view.
      if (!(error instanceof ThreadlogError) || error.code !== 'revision_mismatch') throw error;
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

@CommandHandler(CreateView)
export class CreateViewHandler implements ICommandHandler<CreateView> {
  constructor(@Inject(ViewWriter) private readonly writer: ViewWriter) {}

  execute({ context, id = derivedId('view', context.commandId), given, owner }: CreateView): Promise<ViewChanged> {
    return this.writer.create(everAgain(context), id, given, owner);
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

@CommandHandler(ChangeView)
export class ChangeViewHandler implements ICommandHandler<ChangeView> {
  constructor(@Inject(ViewWriter) private readonly writer: ViewWriter) {}

  execute({ context, id, by, changes }: ChangeView): Promise<ViewChanged> {
    return this.writer.write(context, id, by, changeView(changes, by));
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

@CommandHandler(ArchiveView)
export class ArchiveViewHandler implements ICommandHandler<ArchiveView> {
  constructor(@Inject(ViewWriter) private readonly writer: ViewWriter) {}

  execute({ context, id, by }: ArchiveView): Promise<ViewChanged> {
    return this.writer.write(context, id, by, archiveView(by));
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

@CommandHandler(UnarchiveView)
export class UnarchiveViewHandler implements ICommandHandler<UnarchiveView> {
  constructor(@Inject(ViewWriter) private readonly writer: ViewWriter) {}

  execute({ context, id, by }: UnarchiveView): Promise<ViewChanged> {
    return this.writer.write(context, id, by, unarchiveView(by));
  }
}

/** Every handler of this file; the module registers them, and the start checks that every command has one. */
export const viewCommandHandlers = [CreateViewHandler, ChangeViewHandler, ArchiveViewHandler, UnarchiveViewHandler];
