import { Inject, Injectable } from '@nestjs/common';
import { Command, CommandHandler, type ICommandHandler } from '@nestjs/cqrs';
import { CannedResponseRenderer } from '../canned-responses/canned-response.rendering.js';
import { aside, assertNotRefused, type CommandContext, isExpected } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { type Inbox, inboxAggregate } from '../inboxes/inbox.js';
import { organizationAggregate } from '../organizations/organization.js';
import { ThreadlogError } from '../errors.js';
import { KeptAnswers } from '../commands/idempotency.js';
import { derivedId, type Ids, IDS } from '../ids.js';
import type { DataKey } from '../security/sealing.js';
import { textFault } from '../http/validation.js';
import { VisitorKeys } from '../security/visitor-keys.js';
import { assigneeAggregate, type AssigneeState } from '../team/assignee.js';
import { type KeyLeft, VisitorWriter } from '../visitors/visitor.writer.js';
import type { PlainVisitor } from '../visitors/visitor.sealing.js';
import * as conversation from './conversation.js';
import type { Author, Channel, Conversation, ConversationEvent, Decision, Priority, SettableStatus } from './conversation.js';
import { type MessageInput, sealAttributes, sealComment, sealMessage, sealSubject } from './conversation.sealing.js';
import { MAX_CONTENT } from './message.dto.js';

/** How old the cached agent, team, inbox or company may be (ms) when a command checks that it exists. */
const SETTINGS_MAX_AGE_MS = 1_000;

/** The answer of every command on a conversation. */
export interface ConversationChanged extends Transacted<Conversation, ConversationEvent> {
  readonly id: string;
}

/** Decides the next events from the state, the prepared value and the time (ms). */
type Decide<T> = (state: Conversation, context: T & { readonly now: number }) => readonly ConversationEvent[];

/** Shared by the commands on conversations: the visitor's key, lookups of ids, and the append to the log. */
@Injectable()
export class ConversationWriter {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
  ) {}

  /**
   * Runs a decision on a conversation. A visitor reaches only its own conversations, and its If-Match counts the revisions it is shown.
   * @throws ThreadlogError not_found and what the decision throws
   */
  change(command: CommandContext, id: string, decide: Decide<object>): Promise<ConversationChanged> {
    return this.changeWith(command, id, undefined, decide);
  }

  /**
   * Like change(), for a decision that needs more than the state.
   * @param prepare fetches and checks what the decision needs: before every attempt, and never for a command that was answered before
   */
  async changeWith<T extends object>(
    command: CommandContext,
    id: string,
    prepare: ((state: Conversation) => Promise<T>) | undefined,
    decide: Decide<T>,
  ): Promise<ConversationChanged> {
    // A conversation's visitor never changes, so a cached state of any age will do here.
    const known = await this.transactor.load(conversation.conversationAggregate, command.organizationId, id, Infinity);
    if (known === undefined || !isFor(command, known.state)) throw new ThreadlogError('not_found');
    const { keyId } = known.state;
    const { ifMatch, ...unconditional } = command;
    const byVisitor = command.actor.type === 'visitor';
    const done = await this.transactor.transact(
      conversation.conversationAggregate,
      id,
      byVisitor ? { ...unconditional, keyId } : { ...command, keyId },
      (state, prepared: T, now) => {
        const { revision } = state.shown;
        if (byVisitor && !isExpected(ifMatch, revision)) throw new ThreadlogError('revision_mismatch', `the revision is ${revision}`);
        return decide(state, { ...prepared, now });
      },
      prepare,
    );
    return { ...done, id };
  }

  /** The key that seals the conversation's texts. @throws ThreadlogError visitor_erased */
  async key(organizationId: string, { keyId }: Conversation): Promise<DataKey> {
    const key = await this.keys.find(organizationId, keyId);
    if (key === undefined) throw new ThreadlogError('visitor_erased');
    return key;
  }

  /** The conversation's assignee and team, as far as they are archived. Looks nothing up for a conversation that cannot become open. */
  async archived(organizationId: string, { status, assignee, team }: Conversation): Promise<ReadonlySet<string>> {
    if (status === 'open' || status === 'closed') return NOBODY;
    const ids = [...new Set([assignee, team].flatMap((one) => one?.id ?? []))];
    const found = await Promise.all(ids.map((id) => this.agentOrTeam(organizationId, id)));
    return new Set(ids.filter((_, index) => found[index]?.archived === true));
  }

  /** An agent or a team, including archived ones. */
  async agentOrTeam(organizationId: string, id: string, maxAgeMs = SETTINGS_MAX_AGE_MS): Promise<AssigneeState | undefined> {
    return (await this.transactor.load(assigneeAggregate, organizationId, id, maxAgeMs))?.state;
  }

  /** The acting agent or key, with its current name, which its messages keep. */
  async author(context: CommandContext, keyName: string): Promise<Author> {
    const { type, id } = context.actor;
    if (type !== 'agent') return { type: type === 'automation' ? 'automation' : 'apiKey', id, name: keyName };
    const agent = await this.transactor.load(assigneeAggregate, context.organizationId, id, SETTINGS_MAX_AGE_MS);
    return { type: 'agent', id, name: agent?.state.name ?? id };
  }

  /**
   * The agent or team that an assignment names, including archived ones.
   * @throws ThreadlogError unknown_assignee, unknown_team, validation_failed for a team as assignee beside another team
   */
  async named(organizationId: string, { assigneeId, teamId }: Assignment): Promise<NamedAssignment> {
    const [assignee, team] = await Promise.all(
      [assigneeId, teamId].map(async (id) => (typeof id === 'string' ? this.agentOrTeam(organizationId, id) : undefined)),
    );
    if (typeof assigneeId === 'string') {
      if (assignee === undefined) throw new ThreadlogError('unknown_assignee', `no agent or team has the id ${assigneeId}`);
      if (assignee.type === 'team' && teamId !== undefined && teamId !== assigneeId)
        throw new ThreadlogError('validation_failed', undefined, {
          errors: [{ field: 'teamId', message: 'must be absent beside an assigneeId that is a team, or the same' }],
        });
    }
    if (typeof teamId === 'string' && team?.type !== 'team') throw new ThreadlogError('unknown_team', `no team has the id ${teamId}`);
    return {
      ...(assigneeId === undefined ? {} : { assignee: nameOf(assigneeId, assignee) }),
      ...(teamId === undefined ? {} : { team: nameOf(teamId, team) }),
    };
  }

  /**
   * The agent or team that an assignment names; an archived one is accepted only if the conversation has it already.
   * @throws ThreadlogError as named(), and resource_archived
   */
  async assignment(organizationId: string, asked: Assignment, current: Conversation): Promise<NamedAssignment> {
    const { assignee, team } = await this.named(organizationId, asked);
    for (const [one, has] of [
      [assignee, current.assignee],
      [team, current.team],
    ] as const)
      if (one?.archived === true && one.id !== has?.id) throw resourceArchived(one.type, one.id);
    return { ...(assignee === undefined ? {} : { assignee }), ...(team === undefined ? {} : { team }) };
  }

  /** An inbox, including archived ones. @throws ThreadlogError unknown_inbox */
  async knownInbox(organizationId: string, id: string): Promise<Inbox> {
    const found = await this.transactor.load(inboxAggregate, organizationId, id, SETTINGS_MAX_AGE_MS);
    if (found === undefined) throw new ThreadlogError('unknown_inbox', `no inbox has the id ${id}`);
    return found.state;
  }

  /** The id of an inbox that accepts conversations. @throws ThreadlogError unknown_inbox, resource_archived */
  async inbox(organizationId: string, id: string): Promise<string> {
    if ((await this.knownInbox(organizationId, id)).archived) throw resourceArchived('inbox', id);
    return id;
  }

  async defaultInbox(organizationId: string): Promise<string> {
    const organization = await this.transactor.load(organizationAggregate, organizationId, organizationId, SETTINGS_MAX_AGE_MS);
    const inboxId = organization?.state.defaultInboxId;
    if (inboxId === undefined || inboxId === null) throw new ThreadlogError('unknown_inbox', 'the organization has no default inbox');
    return inboxId;
  }

  /** @throws ThreadlogError unknown_conversation */
  async previous(context: CommandContext, id: string): Promise<void> {
    const known = await this.transactor.load(conversation.conversationAggregate, context.organizationId, id, Infinity);
    if (known === undefined || !isFor(context, known.state))
      throw new ThreadlogError('unknown_conversation', `no conversation has the id ${id}`);
  }

  /**
   * Appends a new conversation. Its id derives from the command, so a retry reaches the same stream. The whole stream is searched for the
   * command, however old it is; otherwise a late retry would send the first message twice.
   */
  async open(context: CommandContext, id: string, keyId: string, decide: Decision): Promise<ConversationChanged> {
    const command = { ...context, keyId, thorough: true as const };
    const done = await this.transactor.transact(conversation.conversationAggregate, id, command, decide);
    return { ...done, id };
  }

  /** The answer of the same command when it was sent before; undefined the first time. @throws ThreadlogError idempotency_key_reused */
  async opened(context: CommandContext, id: string): Promise<ConversationChanged | undefined> {
    const known = await this.transactor.load(conversation.conversationAggregate, context.organizationId, id, Infinity);
    return known === undefined ? undefined : this.open(context, id, known.state.keyId, conversation.ifExists);
  }
}

const NOBODY: ReadonlySet<string> = new Set();

const resourceArchived = (what: 'agent' | 'team' | 'inbox', id: string) =>
  new ThreadlogError('resource_archived', `the ${what} ${id} is archived`);

/** A request's assignee and team: null removes the assignment, an absent field leaves it. */
export interface Assignment {
  /** An agent's or a team's id. */
  readonly assigneeId?: string | null;
  readonly teamId?: string | null;
}

interface NamedAssignee extends conversation.Assignee {
  readonly archived: boolean;
}

/** An assignment with the agents and teams that its ids name. */
export interface NamedAssignment {
  readonly assignee?: NamedAssignee | null;
  readonly team?: NamedAssignee | null;
}

function nameOf(id: string | null, state: AssigneeState | undefined): NamedAssignee | null {
  return id === null || state === undefined ? null : { id, type: state.type, name: state.name, archived: state.archived };
}

const asAssignee = (named: NamedAssignee | null | undefined) => named && { id: named.id, type: named.type, name: named.name };
const asTeam = (named: NamedAssignee | null | undefined) => named && { id: named.id, name: named.name };

/** Whether the caller may see a conversation: the team sees all of them, a visitor only its own. */
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

export interface ConversationOpened extends ConversationChanged {
  /** Keys in the request that belong to other visitors and stayed with them. */
  readonly left: readonly KeyLeft[];
}

/** Opens a conversation with its first message; finds or creates the visitor. */
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
    @Inject(VisitorWriter) private readonly visitors: VisitorWriter,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
    @Inject(KeptAnswers) private readonly kept: KeptAnswers,
    @Inject(IDS) private readonly ids: Ids,
  ) {}

  async execute({ context, keyName, input }: OpenConversation): Promise<ConversationOpened> {
    const { organizationId, commandId, requestHash } = context;
    const id = derivedId('conversation', commandId);
    const leftId = derivedId('keys left', commandId, requestHash);
    // A retry finds the conversation, and must not undo later changes to the visitor.
    const made = context.keyed === true ? await this.writer.opened(context, id) : undefined;
    if (made !== undefined) return { ...made, left: (await this.kept.find<Left>(leftId))?.left.map(fieldFirst) ?? [] };
    // Check everything that may be refused before anything is written; the visitor writer checks the visitor's company.
    assertNotRefused(context);
    if (context.ifMatch !== undefined) throw new ThreadlogError('revision_mismatch', 'a new conversation has no revision yet');
    const inboxId =
      input.inboxId === undefined ? await this.writer.defaultInbox(organizationId) : await this.writer.inbox(organizationId, input.inboxId);
    if (input.previousConversationId !== undefined) await this.writer.previous(context, input.previousConversationId);
    const author = input.as === 'agent' ? await this.writer.author(context, keyName) : undefined;

    const visitor = await this.visitors.resolve(aside(context), input.visitor);
    const { left } = visitor;
    // The log does not hold the left keys. Store them before the conversation exists: a retry that finds it must find them too.
    if (context.keyed === true && left.length > 0) await this.kept.first<Left>(leftId, context, { left });
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

/** What we keep for a keyed opening. */
interface Left {
  readonly left: readonly KeyLeft[];
}
/** Restores the order of the fields in the first answer: jsonb returns them in another order. */
const fieldFirst = ({ field, code }: KeyLeft): KeyLeft => ({ field, code });

/** Renders a canned response in the conversation at the moment of the decision. */
export interface CannedResponseUse {
  readonly cannedResponseId: string;
}

/**
 * An agent's public reply or internal note, optionally with a status that is set in the same append.
 * @throws ThreadlogError unknown_canned_response, resource_archived; unsendable_message when the text is empty or too long
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
    const { organizationId } = context;
    const author = await this.writer.author(context, keyName);
    const messageId = this.ids.next();
    const speak = type === 'note' ? conversation.addNote : conversation.reply;
    return this.writer.changeWith(
      context,
      id,
      async (state) => {
        const key = await this.writer.key(organizationId, state);
        const said = 'cannedResponseId' in message ? await this.rendered(context, id, message, author) : message;
        const archived = status === 'open' ? await this.writer.archived(organizationId, state) : NOBODY;
        return { sealed: sealMessage(key, messageId, said), archived };
      },
      (state, { sealed, archived }) => speak(sealed, author, status, archived)(state),
    );
  }

  private async rendered(
    context: CommandContext,
    id: string,
    { cannedResponseId }: CannedResponseUse,
    author: Author,
  ): Promise<MessageInput> {
    const { organizationId } = context;
    const content = await this.cannedResponses.content(organizationId, cannedResponseId);
    const rendered = await this.cannedResponses.render(organizationId, content, id, author.name);
    if (rendered === undefined) throw new ThreadlogError('not_found');
    const fault = textFault(rendered.text, MAX_CONTENT);
    if (fault !== undefined) throw new ThreadlogError('unsendable_message', `the rendered text ${fault}`);
    return { type: 'text', content: rendered.text };
  }
}

/** The visitor writes a message. */
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
    const { organizationId } = context;
    const messageId = this.ids.next();
    return this.writer.changeWith(
      context,
      id,
      async (state) => {
        const key = await this.writer.key(organizationId, state);
        return { sealed: sealMessage(key, messageId, message), archived: await this.writer.archived(organizationId, state) };
      },
      (state, { sealed, archived }) => conversation.receive(sealed, archived)(state),
    );
  }
}

/**
 * Sets the assignee, the team's queue, or both.
 * @throws ThreadlogError unknown_assignee, unknown_team, resource_archived, conversation_closed, validation_failed for two teams
 */
export class AssignConversation extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly to: Assignment,
  ) {
    super();
  }
}

/**
 * Removes an archived agent or team from a conversation that has not ended. Changes nothing when the agent or team has been unarchived
 * in the meantime.
 */
export class TakeOffArchived extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly assigneeId: string,
  ) {
    super();
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

/** The snooze timer fires. */
export class WakeConversation extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    /** Revision of the event that set the snooze. */
    readonly snoozeRevision: number,
    /** When the timer fired, by the clock of the timers (ms). */
    readonly firedAt: number,
  ) {
    super();
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

export class RemoveTag extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly tag: string,
  ) {
    super();
  }
}

export interface ConversationChanges {
  readonly status?: SettableStatus;
  readonly subject?: string | null;
  readonly priority?: Priority;
  /** Merged; null removes an attribute. */
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

export class RateConversation extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly rating: number,
    /** Absent keeps the comment of the episode's rating, null removes it. */
    readonly comment?: string | null,
  ) {
    super();
  }
}

/** Why a status changes at somebody's request. */
const reasonOf = ({ type }: CommandContext['actor']): conversation.Reason => (type === 'automation' ? 'automation' : 'agent');

/** The decisions that set the named fields, in order. */
async function changesOf(
  writer: ConversationWriter,
  { organizationId, actor }: CommandContext,
  changes: ConversationChanges,
  state: Conversation,
): Promise<readonly Decision[]> {
  const { status, subject, priority, customAttributes, inboxId } = changes;
  const decisions: Decision[] = [];
  if (subject !== undefined)
    decisions.push(conversation.changeSubject(subject === null ? null : sealSubject(await writer.key(organizationId, state), subject)));
  if (priority !== undefined) decisions.push(conversation.changePriority(priority));
  if (customAttributes !== undefined)
    decisions.push(conversation.changeCustomAttributes(sealAttributes(await writer.key(organizationId, state), customAttributes)));
  if (inboxId !== undefined) {
    if (inboxId !== state.inboxId) await writer.inbox(organizationId, inboxId);
    decisions.push(conversation.changeInbox(inboxId));
  }
  // Last, so that one request can close a conversation and change its fields.
  if (status !== undefined) {
    const archived = status === 'open' ? await writer.archived(organizationId, state) : NOBODY;
    decisions.push(conversation.setStatus(status, reasonOf(actor), archived));
  }
  return decisions;
}

const handled = handledBy(ConversationWriter);

/** The handlers of this file, for the module. */
export const conversationCommandHandlers = [
  OpenConversationHandler,
  ReplyToConversationHandler,
  ReceiveMessageHandler,
  handled(AssignConversation, (writer, { context, id, to }) =>
    writer.changeWith(
      context,
      id,
      (state) => writer.assignment(context.organizationId, to, state),
      (state, { assignee, team }) => conversation.assign(asAssignee(assignee), asTeam(team))(state),
    ),
  ),
  handled(TakeOffArchived, (writer, { context, id, assigneeId }) =>
    writer.changeWith(
      context,
      id,
      async () => {
        // From the log: the cache may still hold as archived an agent that was unarchived and assigned since.
        const found = await writer.agentOrTeam(context.organizationId, assigneeId, 0);
        return { archived: found?.archived === true ? new Set([assigneeId]) : NOBODY };
      },
      (state, { archived }) => conversation.takeOffArchived(archived)(state),
    ),
  ),
  handled(SnoozeConversation, (writer, { context, id, until }) =>
    writer.change(context, id, (state, { now }) => conversation.snooze(until, now, reasonOf(context.actor))(state)),
  ),
  handled(WakeConversation, (writer, { context, id, snoozeRevision, firedAt }) =>
    writer.changeWith(
      context,
      id,
      async (state) => ({ archived: await writer.archived(context.organizationId, state) }),
      (state, { archived }) => conversation.wake(snoozeRevision, firedAt, archived)(state),
    ),
  ),
  handled(AddTags, (writer, { context, id, tags }) => writer.change(context, id, conversation.addTags(tags))),
  handled(RemoveTag, (writer, { context, id, tag }) => writer.change(context, id, conversation.removeTag(tag))),
  handled(ChangeConversation, (writer, { context, id, changes }) =>
    writer.changeWith(
      context,
      id,
      async (state) => ({ decisions: await changesOf(writer, context, changes, state) }),
      (state, { decisions }) => conversation.inTurn(conversation.ifExists, ...decisions)(state),
    ),
  ),
  handled(RateConversation, (writer, { context, id, rating, comment }) =>
    writer.changeWith(
      context,
      id,
      async (state) => ({
        sealed: typeof comment === 'string' ? sealComment(await writer.key(context.organizationId, state), comment) : comment,
      }),
      (state, { sealed }) => conversation.rate(rating, sealed)(state),
    ),
  ),
];

/** The message that a command stored, sealed. */
export function storedMessage(changed: ConversationChanged): conversation.LastMessage {
  for (const event of changed.events) {
    const message = conversation.messageOfEvent(event);
    if (message !== undefined) return message;
  }
  throw new Error('the command stored no message');
}
