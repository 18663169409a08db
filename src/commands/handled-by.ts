import { Inject, type Type } from '@nestjs/common';
import { type Command, CommandHandler, type CommandResult } from '@nestjs/cqrs';

type CommandType<C> = new (...fields: never[]) => C;

/**
 * Makes the handlers of commands that a writer does by one call: `by(ArchiveInbox, (writer, { context, id }) => writer.archive(context, id))`.
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
    // By which Nest names it in its errors.
    Object.defineProperty(Handler, 'name', { value: `${command.name}Handler` });
    return Handler;
  };
