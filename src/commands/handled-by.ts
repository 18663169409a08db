import { Inject, type Type } from '@nestjs/common';
import { type Command, CommandHandler, type CommandResult } from '@nestjs/cqrs';

type CommandType<C> = new (...fields: never[]) => C;

/**
 * Makes handlers for commands that take one call of a writer: `by(ArchiveInbox, (writer, { context, id }) => writer.archive(context, id))`.
 * @param Writer a class that the module provides
 */
export const handledBy =
  <W extends object>(Writer: Type<W>) =>
  <C extends Command<unknown>>(
    command: CommandType<C>,
    run: (writer: W, command: C) => Promise<CommandResult<C>>,
  ): Type<{ execute(command: C): Promise<CommandResult<C>> }> => {
    @CommandHandler(command)
    class Handler {
      constructor(@Inject(Writer) private readonly writer: W) {}

      execute(asked: C): Promise<CommandResult<C>> {
        return run(this.writer, asked);
      }
    }
    // Nest uses this name in its errors.
    Object.defineProperty(Handler, 'name', { value: `${command.name}Handler` });
    return Handler;
  };
