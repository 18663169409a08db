import { Inject } from '@nestjs/common';
import { Command, CommandHandler, type ICommandHandler } from '@nestjs/cqrs';
import { type CommandContext, everAgain } from '../commands/command-context.js';
import { Transactor } from '../commands/transactor.js';
import { derivedId } from '../ids.js';
import { automaticAnswer } from '../inboxes/automatic-answer.js';
import { inboxAggregate } from '../inboxes/inbox.js';
import { type ConversationChanged, ConversationWriter } from './conversation.commands.js';
import { answerVisitor, conversationAggregate } from './conversation.js';
import { sealMessage } from './conversation.sealing.js';

/** A visitor's message that an inbox may answer by itself. */
export interface VisitorMessage {
  readonly revision: number;
  readonly writtenAt: number;
  readonly inboxId: string;
  readonly episode: number;
}

/**
 * An inbox answers a visitor by itself, in the words of its settings now. Changes nothing when a person has replied since the message, when
 * its episode has ended, when the conversation is in another inbox, or when the inbox does not answer. The command's id is that of the
 * episode, so that an episode is answered once.
 * @throws ThreadlogError not_found, visitor_erased
 */
export class AnswerVisitor extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly message: VisitorMessage,
  ) {
    super();
  }
}

@CommandHandler(AnswerVisitor)
export class AnswerVisitorHandler implements ICommandHandler<AnswerVisitor> {
  constructor(
    @Inject(ConversationWriter) private readonly writer: ConversationWriter,
    @Inject(Transactor) private readonly transactor: Transactor,
  ) {}

  async execute({ context, id, message }: AnswerVisitor): Promise<ConversationChanged> {
    const { organizationId, commandId } = context;
    const { inboxId, writtenAt, episode, revision } = message;
    return this.writer.changeWith(
      everAgain(context),
      id,
      async (state) => {
        // From the log: a visitor who writes right after the answer was switched on is answered.
        const inbox = (await this.transactor.load(inboxAggregate, organizationId, inboxId))?.state;
        const text = inbox && automaticAnswer(inbox, writtenAt);
        if (inbox === undefined || text === undefined || (await this.personReplied(organizationId, id, revision))) return {};
        const key = await this.writer.key(organizationId, state);
        const sealed = sealMessage(key, derivedId('automatic answer', commandId), { type: 'text', content: text });
        return { answer: { sealed, author: { type: 'automation', id: inboxId, name: inbox.name } as const } };
      },
      (state, { answer }) => (answer === undefined ? [] : answerVisitor(answer.sealed, answer.author, episode)(state)),
    );
  }

  /** Whether a person has replied to the visitor since a revision. */
  private async personReplied(organizationId: string, id: string, since: number): Promise<boolean> {
    for await (const event of this.transactor.history(conversationAggregate, organizationId, id, { from: since + 1 }))
      if (event.type === 'MessageSent' && event.data.author.type !== 'automation') return true;
    return false;
  }
}
