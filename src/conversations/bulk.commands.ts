import { Inject } from '@nestjs/common';
import { Command, CommandBus, CommandHandler, type ICommandHandler, QueryBus } from '@nestjs/cqrs';
import { CannedResponseRenderer } from '../canned-responses/canned-response.rendering.js';
import type { Position } from '../event-store/event-store.js';
import { assertNotRefused, type CommandContext } from '../commands/command-context.js';
import { type ErrorCode, ERRORS, ThreadlogError } from '../errors.js';
import { KeptAnswers } from '../commands/idempotency.js';
import { derivedId } from '../ids.js';
import { type ConversationFilter, FindConversationIds } from './conversation.list.js';
import {
  AddTags,
  AssignConversation,
  type Assignment,
  ChangeConversation,
  type ConversationChanged,
  type ConversationChanges,
  type CannedResponseUse,
  ConversationWriter,
  RemoveTag,
  ReplyToConversation,
  SnoozeConversation,
  storedMessage,
} from './conversation.commands.js';
import type { SettableStatus } from './conversation.js';
import type { MessageInput } from './conversation.sealing.js';

/** How many conversations one request may change. */
export const MAX_BULK = 500;
/** Items in flight at once: enough to keep the log's batches full, and few enough to leave room for other commands. */
const AT_ONCE = 16;

/** The action on each conversation: any command that exists for a single conversation. */
export type BulkAction =
  | ({ readonly type: 'assign' } & Assignment)
  | { readonly type: 'snooze'; readonly until: string }
  | { readonly type: 'addTags'; readonly tags: readonly string[] }
  | { readonly type: 'removeTag'; readonly tag: string }
  | ({ readonly type: 'change' } & ConversationChanges)
  | { readonly type: 'reply' | 'note'; readonly says: MessageInput | CannedResponseUse; readonly status?: SettableStatus };

export type BulkSelection = { readonly ids: readonly string[] } | { readonly filter: ConversationFilter };

/** The outcome for one conversation: the answer of the single request, without the conversation. */
export type BulkItem =
  | { readonly id: string; readonly status: 200 | 201; readonly revision: number; readonly messageId?: string }
  | {
      readonly id: string;
      readonly status: number;
      readonly code: ErrorCode;
      readonly detail?: string;
      readonly allowed?: readonly string[];
    };

export interface BulkResult {
  /** In the order of the ids; with a filter, the most recently changed conversation comes first. */
  readonly items: readonly BulkItem[];
  /** The highest position of the items; null when no item succeeded. */
  readonly position: Position | null;
}

/**
 * One action on many conversations. Each conversation gets its own command, whose id derives from this command's id and the
 * conversation's id. A request repeated with its Idempotency-Key after a crash therefore answers what was done and does not do it twice.
 * @throws ThreadlogError unknown_assignee, unknown_team, unknown_inbox, unknown_canned_response, resource_archived, limit_exceeded,
 * revision_mismatch, all before anything is done; store_unavailable when no item could be done, outcome_unknown when that is not known
 */
export class ChangeManyConversations extends Command<BulkResult> {
  constructor(
    readonly context: CommandContext,
    readonly keyName: string,
    readonly selection: BulkSelection,
    readonly action: BulkAction,
  ) {
    super();
  }
}

/** What we keep for a keyed request: the ids, since a filter may find other conversations on the retry, and at the end the result. */
interface Kept {
  readonly ids: readonly string[];
  readonly result?: BulkResult;
}

@CommandHandler(ChangeManyConversations)
export class ChangeManyConversationsHandler implements ICommandHandler<ChangeManyConversations> {
  constructor(
    private readonly commands: CommandBus,
    private readonly queries: QueryBus,
    @Inject(ConversationWriter) private readonly writer: ConversationWriter,
    @Inject(CannedResponseRenderer) private readonly cannedResponses: CannedResponseRenderer,
    @Inject(KeptAnswers) private readonly kept: KeptAnswers,
  ) {}

  async execute({ context, keyName, selection, action }: ChangeManyConversations): Promise<BulkResult> {
    const { commandId, keyed } = context;
    const keptId = derivedId('bulk', commandId);
    let kept = keyed === true ? await this.kept.find<Kept>(keptId) : undefined;
    if (kept?.result !== undefined) return { position: kept.result.position, items: kept.result.items.map(inOrder) };
    if (kept === undefined) {
      assertNotRefused(context);
      if (context.ifMatch !== undefined) throw new ThreadlogError('revision_mismatch', 'many conversations have no one revision');
      await this.assertPossible(context.organizationId, action);
      kept = { ids: await this.select(context.organizationId, selection) };
      if (keyed === true) kept = await this.kept.first(keptId, context, kept);
    }
    const { result, final } = await this.run(kept.ids, (id) => this.commandFor(itemContext(context, id), keyName, id, action));
    if (keyed === true && final) await this.kept.complete(keptId, { ids: kept.ids, result });
    return result;
  }

  /**
   * Refuses the whole request when every conversation would refuse it. An archived assignee, team or inbox does not refuse the whole
   * request, because a conversation may have it already.
   */
  private async assertPossible(organizationId: string, action: BulkAction): Promise<void> {
    if (action.type === 'assign') await this.writer.named(organizationId, action);
    if ((action.type === 'reply' || action.type === 'note') && 'cannedResponseId' in action.says)
      await this.cannedResponses.content(organizationId, action.says.cannedResponseId);
    if (action.type === 'change' && action.inboxId !== undefined) await this.writer.knownInbox(organizationId, action.inboxId);
  }

  private async select(organizationId: string, selection: BulkSelection): Promise<readonly string[]> {
    if ('ids' in selection) return selection.ids;
    const ids = await this.queries.execute(new FindConversationIds(organizationId, selection.filter, MAX_BULK + 1));
    if (ids.length > MAX_BULK)
      throw new ThreadlogError('limit_exceeded', `the filter finds more than ${MAX_BULK} conversations; narrow it`);
    return ids;
  }

  private commandFor(context: CommandContext, keyName: string, id: string, action: BulkAction): Command<ConversationChanged> {
    switch (action.type) {
      case 'assign':
        return new AssignConversation(context, id, action);
      case 'snooze':
        return new SnoozeConversation(context, id, action.until);
      case 'addTags':
        return new AddTags(context, id, action.tags);
      case 'removeTag':
        return new RemoveTag(context, id, action.tag);
      case 'change': {
        const { type: _type, ...changes } = action;
        return new ChangeConversation(context, id, changes);
      }
      case 'reply':
      case 'note':
        return new ReplyToConversation(context, keyName, id, action.type, action.says, action.status);
    }
  }

  /** `final` is true when an immediate retry would change no item. */
  private async run(
    ids: readonly string[],
    commandFor: (id: string) => Command<ConversationChanged>,
  ): Promise<{ result: BulkResult; final: boolean }> {
    const items = new Map<string, BulkItem>();
    let position: Position | null = null;
    let down: ThreadlogError | undefined;
    let fault: unknown;
    let final = true;
    const left = ids.values();
    const worker = async () => {
      for (const id of left) {
        // Each of these would wait for the deadline in turn, so none of them was tried.
        if (down !== undefined || fault !== undefined) {
          items.set(id, refusal(id, down ?? new ThreadlogError('store_unavailable')));
          continue;
        }
        try {
          const command = commandFor(id);
          const changed: ConversationChanged = await this.commands.execute(command);
          if (position === null || changed.position > position) position = changed.position;
          items.set(
            id,
            command instanceof ReplyToConversation
              ? { id, status: 201, revision: changed.revision, messageId: storedMessage(changed).messageId }
              : { id, status: 200, revision: changed.revision },
          );
        } catch (error) {
          if (!(error instanceof ThreadlogError)) {
            fault ??= error;
            continue;
          }
          if (ERRORS[error.code].status >= 500) down = new ThreadlogError('store_unavailable', undefined, {}, { cause: error });
          if (ERRORS[error.code].status >= 500 || error.code === 'concurrent_changes') final = false;
          items.set(id, refusal(id, error));
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    if (fault !== undefined) {
      if (position === null) throw fault instanceof Error ? fault : new Error('a fault that is no error', { cause: fault });
      // Some items are done; an error of another code would deny them.
      throw new ThreadlogError('outcome_unknown', undefined, { retryAfterSeconds: 1 }, { cause: fault });
    }
    const ordered = ids.flatMap((id) => items.get(id) ?? []);
    if (down !== undefined && ordered.every(({ status }) => status >= 500)) {
      const code = ordered.some((item) => 'code' in item && item.code === 'outcome_unknown') ? 'outcome_unknown' : 'store_unavailable';
      throw new ThreadlogError(code, undefined, { retryAfterSeconds: 1 }, { cause: down.cause });
    }
    return { result: { items: ordered, position }, final };
  }
}

function itemContext(context: CommandContext, id: string): CommandContext {
  const { ifMatch: _ifMatch, ...item } = context;
  return { ...item, commandId: derivedId('bulk item', context.commandId, id), causationId: context.commandId };
}

function refusal(id: string, { code, detail, extra: { allowed } }: ThreadlogError): BulkItem {
  const { status } = ERRORS[code];
  return { id, status, code, ...(detail === undefined ? {} : { detail }), ...(allowed === undefined ? {} : { allowed }) };
}

/** Restores the order of the fields in the first answer: jsonb returns them in another order. */
function inOrder(item: BulkItem): BulkItem {
  if ('code' in item) {
    const { id, status, code, detail, allowed } = item;
    return { id, status, code, ...(detail === undefined ? {} : { detail }), ...(allowed === undefined ? {} : { allowed }) };
  }
  const { id, status, revision, messageId } = item;
  return { id, status, revision, ...(messageId === undefined ? {} : { messageId }) };
}
