import { Inject } from '@nestjs/common';
import { Command, CommandHandler, type ICommandHandler } from '@nestjs/cqrs';
import { CannedResponseRenderer } from '../canned-responses/canned-response.rendering.js';
import { companyAggregate } from '../companies/company.js';
import { aside, type CommandContext, type Transacted, Transactor } from '../event-store/transact.js';
import { inboxAggregate } from '../inboxes/inbox.js';
import { organizationAggregate } from '../organizations/organization.js';
import { ThreadlogError } from '../platform/errors.js';
import { KeptAnswers } from '../platform/idempotency.js';
import { derivedId, type Ids, IDS } from '../platform/ids.js';
import type { DataKey } from '../platform/sealing.js';
import { textFault } from '../platform/validation.js';
import { VisitorKeys } from '../platform/visitor-keys.js';
import { assigneeAggregate } from '../team/assignee.js';
import { type KeyLeft, VisitorDirectory } from '../visitors/visitor.directory.js';
import type { PlainVisitor } from '../visitors/visitor.opening.js';
import * as conversation from './conversation.js';
import type { Author, Channel, Conversation, ConversationEvent, Decision, Priority, SettableStatus } from './conversation.js';
import { type MessageInput, sealAttributes, sealComment, sealMessage, sealSubject } from './conversation.opening.js';
import { MAX_CONTENT } from './message.dto.js';

/** How old the memory of an agent, team, inbox or company may be when a command looks whether it exists (ms). */
const SETTINGS_MAX_AGE_MS = 1_000;

/** What every command on a conversation answers. */
export interface ConversationChanged extends Transacted<Conversation, ConversationEvent> {
  readonly id: string;
}

/** What commands on conversations share: the visitor's key, the names of those who act, and the trip to the log. */
export class ConversationWriter {
  constructor(
    private readonly transactor: Transactor,
    private readonly keys: VisitorKeys,
  ) {}

  /**
   * Runs a decision on a conversation. `decide` gets the visitor's key for what it must seal, and the assignees that may not keep a
   * reopened conversation. A visitor who acts reaches its own conversations alone, and counts their revisions as it is shown them.
   */
  change(
    context: CommandContext,
    id: string,
    decide: (key: DataKey, archived: ReadonlySet<string>) => (now: number) => Decision,
  ): Promise<ConversationChanged> {
    return this.changeWith(context, id, NOTHING, decide);
  }

  /**
   * As change(), with what `prepare` fetches for the decision: each time that it is decided, and not at all for a command that was answered
   * before.
   */
  async changeWith<T>(
    context: CommandContext,
    id: string,
    prepare: () => Promise<T>,
    decide: (key: DataKey, archived: ReadonlySet<string>, prepared: T) => (now: number) => Decision,
  ): Promise<ConversationChanged> {
    // A conversation's visitor never changes, so any memory of it will do here.
    const known = await this.transactor.load(conversation.conversationAggregate, context.organizationId, id, Infinity);
    if (known === undefined || !isFor(context, known.state)) throw new ThreadlogError('not_found');
    const { keyId } = known.state;
    const key = await this.keys.find(context.organizationId, keyId);
    if (key === undefined) throw new ThreadlogError('visitor_erased');
    const { ifMatch, ...command } = context;
    const byVisitor = context.actor.type === 'visitor';
    const done = await this.transactor.transact(
      conversation.conversationAggregate,
      id,
      byVisitor ? { ...command, keyId } : { ...context, keyId },
      (state, { archived, prepared }: { archived: ReadonlySet<string>; prepared: T }, now) => {
        const { revision } = state.shown;
        if (byVisitor && ifMatch !== undefined && ifMatch !== revision)
          throw new ThreadlogError('revision_mismatch', `the revision is ${revision}`);
        return decide(key, archived, prepared)(now)(state);
      },
      async (state) => ({ prepared: await prepare(), archived: await this.archivedAssignee(context.organizationId, state) }),
    );
    return { ...done, id };
  }

  /** Only a conversation that may be reopened needs to know. */
  private async archivedAssignee(organizationId: string, state: Conversation): Promise<ReadonlySet<string>> {
    if (state.status !== 'resolved' || state.assignee === null) return NOBODY;
    const assignee = await this.transactor.load(assigneeAggregate, organizationId, state.assignee.id, SETTINGS_MAX_AGE_MS);
    return assignee?.state.archived === true ? new Set([state.assignee.id]) : NOBODY;
  }

  /** The agent or the key that acts, with the name it has now, which its messages keep. */
  async author(context: CommandContext, keyName: string): Promise<Author> {
    const { type, id } = context.actor;
    if (type !== 'agent') return { type: type === 'automation' ? 'automation' : 'apiKey', id, name: keyName };
    const agent = await this.transactor.load(assigneeAggregate, context.organizationId, id, SETTINGS_MAX_AGE_MS);
    return { type: 'agent', id, name: agent?.state.name ?? id };
  }

  /** @throws ThreadlogError unknown_assignee, also for an archived one */
  async assignee(organizationId: string, id: string): Promise<conversation.Assignee> {
    const found = await this.transactor.load(assigneeAggregate, organizationId, id, SETTINGS_MAX_AGE_MS);
    if (found === undefined || found.state.archived) throw new ThreadlogError('unknown_assignee', `no agent or team has the id ${id}`);
    return { id, type: found.state.type, name: found.state.name };
  }

  /** @throws ThreadlogError unknown_inbox, also for an archived one */
  async inbox(organizationId: string, id: string): Promise<string> {
    const found = await this.transactor.load(inboxAggregate, organizationId, id, SETTINGS_MAX_AGE_MS);
    if (found === undefined || found.state.archived) throw new ThreadlogError('unknown_inbox', `no inbox has the id ${id}`);
    return id;
  }

  async defaultInbox(organizationId: string): Promise<string> {
    const organization = await this.transactor.load(organizationAggregate, organizationId, organizationId, SETTINGS_MAX_AGE_MS);
    const inboxId = organization?.state.defaultInboxId;
    if (inboxId === undefined || inboxId === null) throw new ThreadlogError('unknown_inbox', 'the organization has no default inbox');
    return inboxId;
  }

  /** @throws ThreadlogError unknown_company */
  async company(organizationId: string, id: string): Promise<void> {
    const found = await this.transactor.load(companyAggregate, organizationId, id, SETTINGS_MAX_AGE_MS);
    if (found === undefined || found.state.archived) throw new ThreadlogError('unknown_company', `no company has the id ${id}`);
  }

  /** @throws ThreadlogError unknown_conversation */
  async previous(context: CommandContext, id: string): Promise<void> {
    const known = await this.transactor.load(conversation.conversationAggregate, context.organizationId, id, Infinity);
    if (known === undefined || !isFor(context, known.state))
      throw new ThreadlogError('unknown_conversation', `no conversation has the id ${id}`);
  }

  /**
   * Appends a new conversation. Its id derives from its command, so a retry meets its own stream, where it is looked for however old it
   * is: forgotten, it would say its first message again.
   */
  async open(context: CommandContext, id: string, keyId: string, decide: Decision): Promise<ConversationChanged> {
    const command = { ...context, keyId, thorough: true as const };
    const done = await this.transactor.transact(conversation.conversationAggregate, id, command, (state) => decide(state));
    return { ...done, id };
  }

  /** The answer of the same command sent before; undefined when this is the first time. @throws ThreadlogError idempotency_key_reused */
  async opened(context: CommandContext, id: string): Promise<ConversationChanged | undefined> {
    const known = await this.transactor.load(conversation.conversationAggregate, context.organizationId, id, Infinity);
    return known === undefined ? undefined : this.open(context, id, known.state.keyId, conversation.ifExists);
  }
}

const NOBODY: ReadonlySet<string> = new Set();
const NOTHING = () => Promise.resolve(undefined);

/** Whether a conversation is there for the one who acts: all of them for the team, its own for a visitor. */
const isFor = ({ actor }: CommandContext, state: Conversation) => actor.type !== 'visitor' || actor.id === state.visitorId;

export interface OpeningInput {
  readonly visitor: PlainVisitor & { readonly id?: string };
  readonly inboxId?: string;
  readonly message: MessageInput;
  readonly subject?: string;
  readonly customAttributes?: Readonly<Record<string, unknown>>;
  readonly priority?: Priority;
  readonly previousConversationId?: string;
  readonly channel: Channel;
  /** Who wrote the first message. */
  readonly as: 'visitor' | 'agent';
}

/** A conversation that was opened. */
export interface ConversationOpened extends ConversationChanged {
  /** The visitor's keys that were given and left to the visitors whose they are. */
  readonly left: readonly KeyLeft[];
}

/** Opens a conversation with its first message, for a visitor that is found or made. */
export class OpenConversation extends Command<ConversationOpened> {
  constructor(
    readonly context: CommandContext,
    readonly keyName: string,
    readonly input: OpeningInput,
  ) {
    super();
  }
}

@CommandHandler(OpenConversation)
export class OpenConversationHandler implements ICommandHandler<OpenConversation> {
  constructor(
    @Inject(ConversationWriter) private readonly writer: ConversationWriter,
    @Inject(VisitorDirectory) private readonly visitors: VisitorDirectory,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
    @Inject(KeptAnswers) private readonly kept: KeptAnswers,
    @Inject(IDS) private readonly ids: Ids,
  ) {}

  async execute({ context, keyName, input }: OpenConversation): Promise<ConversationOpened> {
    const { organizationId, commandId, requestHash } = context;
    const id = derivedId('conversation', commandId);
    const leftId = derivedId('keys left', commandId, requestHash);
    // A retry finds what it made, and leaves the visitor as others have changed it since.
    const made = context.keyed === true ? await this.writer.opened(context, id) : undefined;
    if (made !== undefined) return { ...made, left: (await this.kept.find<Left>(leftId))?.left.map(fieldFirst) ?? [] };
    // Everything that may be refused is looked at before anything is written.
    if (context.ifMatch !== undefined) throw new ThreadlogError('revision_mismatch', 'a new conversation has no revision yet');
    const inboxId =
      input.inboxId === undefined ? await this.writer.defaultInbox(organizationId) : await this.writer.inbox(organizationId, input.inboxId);
    if (typeof input.visitor.companyId === 'string') await this.writer.company(organizationId, input.visitor.companyId);
    if (input.previousConversationId !== undefined) await this.writer.previous(context, input.previousConversationId);
    const author = input.as === 'agent' ? await this.writer.author(context, keyName) : undefined;

    const visitor = await this.visitors.resolve(aside(context), input.visitor);
    const { left } = visitor;
    // The log does not hold them. Kept before the conversation is there: a retry that finds it has to find them too.
    if (context.keyed === true && left.length > 0) await this.kept.first<Left>(leftId, requestHash, { left });
    const { keyId, key } = await this.keys.make(organizationId, visitor.visitorId);
    const message = sealMessage(key, this.ids.next(), input.message);
    const { companyId } = visitor.state;
    const opening: conversation.Opening = {
      visitorId: visitor.visitorId,
      inboxId,
      channel: input.channel,
      ...(companyId === null ? {} : { companyId }),
      ...(input.priority === undefined ? {} : { priority: input.priority }),
      ...(input.subject === undefined ? {} : { subject: sealSubject(key, input.subject) }),
      ...(input.customAttributes === undefined ? {} : { customAttributes: sealAttributes(key, input.customAttributes) }),
      ...(input.previousConversationId === undefined ? {} : { previousConversationId: input.previousConversationId }),
    };
    const first = author === undefined ? conversation.receive(message) : conversation.reply(message, author);
    const opened = await this.writer.open(context, id, keyId, conversation.inTurn(conversation.open(opening), first));
    return { ...opened, left };
  }
}

/** What is kept of a keyed opening. */
interface Left {
  readonly left: readonly KeyLeft[];
}
/** As it was answered first: what is kept as jsonb comes back with its names in another order. */
const fieldFirst = ({ field, code }: KeyLeft): KeyLeft => ({ field, code });

/** Says what a canned response says in the conversation at the moment of the decision. */
export interface CannedResponseUse {
  readonly cannedResponseId: string;
}

/**
 * An agent's public reply or internal note, with a status to set in the same append.
 * @throws ThreadlogError unknown_canned_response, also for an archived one; unsendable_message when it renders to nothing or to too much
 */
export class ReplyToConversation extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly keyName: string,
    readonly id: string,
    readonly type: 'reply' | 'note',
    readonly message: MessageInput | CannedResponseUse,
    readonly status?: SettableStatus,
  ) {
    super();
  }
}

@CommandHandler(ReplyToConversation)
export class ReplyToConversationHandler implements ICommandHandler<ReplyToConversation> {
  constructor(
    @Inject(ConversationWriter) private readonly writer: ConversationWriter,
    @Inject(CannedResponseRenderer) private readonly cannedResponses: CannedResponseRenderer,
    @Inject(IDS) private readonly ids: Ids,
  ) {}

  async execute({ context, keyName, id, type, message, status }: ReplyToConversation): Promise<ConversationChanged> {
    const author = await this.writer.author(context, keyName);
    const messageId = this.ids.next();
    const speak = type === 'note' ? conversation.addNote : conversation.reply;
    const said = () => ('cannedResponseId' in message ? this.rendered(context, id, message, author) : Promise.resolve(message));
    return this.writer.changeWith(context, id, said, (key, archived, what) => {
      const sealed = sealMessage(key, messageId, what);
      return () => speak(sealed, author, status, archived);
    });
  }

  private async rendered(
    context: CommandContext,
    id: string,
    { cannedResponseId }: CannedResponseUse,
    author: Author,
  ): Promise<MessageInput> {
    const { organizationId } = context;
    const content = await this.cannedResponses.content(organizationId, cannedResponseId);
    if (content === undefined) throw new ThreadlogError('unknown_canned_response', `no canned response has the id ${cannedResponseId}`);
    const rendered = await this.cannedResponses.render(organizationId, content, id, author.name);
    if (rendered === undefined) throw new ThreadlogError('not_found');
    const fault = textFault(rendered.text, MAX_CONTENT);
    if (fault !== undefined) throw new ThreadlogError('unsendable_message', `the rendered text ${fault}`);
    return { type: 'text', content: rendered.text };
  }
}

/** The visitor speaks. */
export class ReceiveMessage extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly message: MessageInput,
  ) {
    super();
  }
}

@CommandHandler(ReceiveMessage)
export class ReceiveMessageHandler implements ICommandHandler<ReceiveMessage> {
  constructor(
    @Inject(ConversationWriter) private readonly writer: ConversationWriter,
    @Inject(IDS) private readonly ids: Ids,
  ) {}

  async execute({ context, id, message }: ReceiveMessage): Promise<ConversationChanged> {
    const messageId = this.ids.next();
    return this.writer.change(context, id, (key, archived) => {
      const sealed = sealMessage(key, messageId, message);
      return () => conversation.receive(sealed, archived);
    });
  }
}

export class AssignConversation extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    /** An agent's or a team's id; null unassigns. */
    readonly assigneeId: string | null,
  ) {
    super();
  }
}

@CommandHandler(AssignConversation)
export class AssignConversationHandler implements ICommandHandler<AssignConversation> {
  constructor(@Inject(ConversationWriter) private readonly writer: ConversationWriter) {}

  async execute({ context, id, assigneeId }: AssignConversation): Promise<ConversationChanged> {
    const assignee = assigneeId === null ? null : await this.writer.assignee(context.organizationId, assigneeId);
    return this.writer.change(context, id, () => () => conversation.assign(assignee));
  }
}

export class SnoozeConversation extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    /** An ISO instant with a zone, or next_reply. */
    readonly until: string,
  ) {
    super();
  }
}

@CommandHandler(SnoozeConversation)
export class SnoozeConversationHandler implements ICommandHandler<SnoozeConversation> {
  constructor(@Inject(ConversationWriter) private readonly writer: ConversationWriter) {}

  execute({ context, id, until }: SnoozeConversation): Promise<ConversationChanged> {
    return this.writer.change(context, id, () => (now) => conversation.snooze(until, now));
  }
}

/** The snooze timer fires. */
export class WakeConversation extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    /** Revision of the event that set the snooze. */
    readonly snoozeRevision: number,
    /** When the timer fired, by the clock that timers go by (ms). */
    readonly firedAt: number,
  ) {
    super();
  }
}

@CommandHandler(WakeConversation)
export class WakeConversationHandler implements ICommandHandler<WakeConversation> {
  constructor(@Inject(ConversationWriter) private readonly writer: ConversationWriter) {}

  execute({ context, id, snoozeRevision, firedAt }: WakeConversation): Promise<ConversationChanged> {
    return this.writer.change(context, id, () => () => conversation.wake(snoozeRevision, firedAt));
  }
}

export class AddTags extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly tags: readonly string[],
  ) {
    super();
  }
}

@CommandHandler(AddTags)
export class AddTagsHandler implements ICommandHandler<AddTags> {
  constructor(@Inject(ConversationWriter) private readonly writer: ConversationWriter) {}

  execute({ context, id, tags }: AddTags): Promise<ConversationChanged> {
    return this.writer.change(context, id, () => () => conversation.addTags(tags));
  }
}

export class RemoveTag extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly tag: string,
  ) {
    super();
  }
}

@CommandHandler(RemoveTag)
export class RemoveTagHandler implements ICommandHandler<RemoveTag> {
  constructor(@Inject(ConversationWriter) private readonly writer: ConversationWriter) {}

  execute({ context, id, tag }: RemoveTag): Promise<ConversationChanged> {
    return this.writer.change(context, id, () => () => conversation.removeTag(tag));
  }
}

export interface ConversationChanges {
  readonly status?: SettableStatus;
  readonly subject?: string | null;
  readonly priority?: Priority;
  /** Merged; null removes. */
  readonly customAttributes?: Readonly<Record<string, unknown>>;
  readonly inboxId?: string;
}

/** Sets the named fields, in one append. */
export class ChangeConversation extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly changes: ConversationChanges,
  ) {
    super();
  }
}

@CommandHandler(ChangeConversation)
export class ChangeConversationHandler implements ICommandHandler<ChangeConversation> {
  constructor(@Inject(ConversationWriter) private readonly writer: ConversationWriter) {}

  async execute({ context, id, changes }: ChangeConversation): Promise<ConversationChanged> {
    const { status, subject, priority, customAttributes, inboxId } = changes;
    if (inboxId !== undefined) await this.writer.inbox(context.organizationId, inboxId);
    return this.writer.change(context, id, (key, archived) => () => {
      const decisions: Decision[] = [];
      if (subject !== undefined) decisions.push(conversation.changeSubject(subject === null ? null : sealSubject(key, subject)));
      if (priority !== undefined) decisions.push(conversation.changePriority(priority));
      if (customAttributes !== undefined) decisions.push(conversation.changeCustomAttributes(sealAttributes(key, customAttributes)));
      if (inboxId !== undefined) decisions.push(conversation.changeInbox(inboxId));
      // Last, so that closing and changing at once is allowed.
      if (status !== undefined) decisions.push(conversation.setStatus(status, 'agent', archived));
      return conversation.inTurn(conversation.ifExists, ...decisions);
    });
  }
}

export class RateConversation extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly rating: number,
    readonly comment?: string,
  ) {
    super();
  }
}

@CommandHandler(RateConversation)
export class RateConversationHandler implements ICommandHandler<RateConversation> {
  constructor(@Inject(ConversationWriter) private readonly writer: ConversationWriter) {}

  execute({ context, id, rating, comment }: RateConversation): Promise<ConversationChanged> {
    return this.writer.change(
      context,
      id,
      (key) => () => conversation.rate(rating, comment === undefined ? undefined : sealComment(key, comment)),
    );
  }
}

/** Every handler of this file; the module registers them, and the start checks that every command has one. */
export const conversationCommandHandlers = [
  OpenConversationHandler,
  ReplyToConversationHandler,
  ReceiveMessageHandler,
  AssignConversationHandler,
  SnoozeConversationHandler,
  WakeConversationHandler,
  AddTagsHandler,
  RemoveTagHandler,
  ChangeConversationHandler,
  RateConversationHandler,
];

/** The message that a command on a conversation stored, sealed. */
export function storedMessage(changed: ConversationChanged): conversation.LastMessage {
  for (const event of changed.events) {
    const message = conversation.messageOfEvent(event);
    if (message !== undefined) return message;
  }
  throw new Error('the command stored no message');
}
