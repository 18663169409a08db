import { ValidateNested } from 'class-validator';
import { ThreadlogError } from '../errors.js';
import { Described, Examples } from '../http/request-schema.js';
import {
  Becomes,
  IfGiven,
  instanceOf,
  IsAttributes,
  IsList,
  IsNested,
  IsOneOf,
  IsRecord,
  isRecord,
  IsResourceId,
  IsTypedText,
  IsVisibleText,
} from '../http/validation.js';
import { type BulkAction, type BulkSelection, MAX_BULK } from './bulk.commands.js';
import { AssignDto, MAX_TAG, ReplyDto, SETTABLE, SnoozeDto, AddTagsDto } from './conversation.controller.js';
import type { ConversationFilter } from './conversation.list.js';
import { MAX_ATTRIBUTES, PRIORITIES, type Priority, type SettableStatus, STATUSES } from './conversation.js';
import { ConversationFilterDto } from './list-query.dto.js';

class AssignAction extends AssignDto {
  @IsOneOf(['assign']) type!: 'assign';
}

class SnoozeAction extends SnoozeDto {
  @IsOneOf(['snooze']) type!: 'snooze';
}

class AddTagsAction extends AddTagsDto {
  @IsOneOf(['addTags']) type!: 'addTags';
}

class RemoveTagAction {
  @IsOneOf(['removeTag']) type!: 'removeTag';
  /** In any spelling, including `.` and `..`, which older builds accepted. */
  @IsTypedText(MAX_TAG) tag!: string;
}

class SetStatusAction {
  @IsOneOf(['setStatus']) type!: 'setStatus';
  @IsOneOf(SETTABLE, { hint: 'to snooze, use the action snooze' })
  status!: SettableStatus;
}

class SetPriorityAction {
  @IsOneOf(['setPriority']) type!: 'setPriority';
  @IsOneOf(PRIORITIES) priority!: Priority;
}

class SetInboxAction {
  @IsOneOf(['setInbox']) type!: 'setInbox';
  @IsResourceId() inboxId!: string;
}

class SetCustomAttributesAction {
  @IsOneOf(['setCustomAttributes']) type!: 'setCustomAttributes';
  /** Merged; null removes an attribute. */
  @IsAttributes(MAX_ATTRIBUTES) customAttributes!: Record<string, unknown>;
}

/** A public reply or an internal note; see ReplyDto. */
class SpeakAction extends ReplyDto {
  declare type: 'reply' | 'note';
}

const ACTIONS = {
  assign: AssignAction,
  snooze: SnoozeAction,
  addTags: AddTagsAction,
  removeTag: RemoveTagAction,
  setStatus: SetStatusAction,
  setPriority: SetPriorityAction,
  setInbox: SetInboxAction,
  setCustomAttributes: SetCustomAttributesAction,
  reply: SpeakAction,
  note: SpeakAction,
} as const;
const ACTION_TYPES = Object.keys(ACTIONS) as (keyof typeof ACTIONS)[];

/** Stands for an action of unknown type, so that the error lists the types. */
class UntypedAction {
  @IsOneOf(ACTION_TYPES) type!: string;
}

type ActionDto = InstanceType<(typeof ACTIONS)[keyof typeof ACTIONS]>;

/** An object whose `type` determines its other fields. */
const IsAction = (): PropertyDecorator => (target, property) => {
  Described((of) => ({ oneOf: [...new Set<new () => object>(Object.values(ACTIONS))].map(of) }))(target, property);
  Becomes((value) => {
    if (!isRecord(value)) return value;
    const { type } = value;
    const known = ACTION_TYPES.find((one) => one === type);
    return known === undefined ? instanceOf(UntypedAction, { type }) : instanceOf<object>(ACTIONS[known], value);
  })(target, property);
  ValidateNested()(target, property);
  IsRecord('must be an object with its type')(target, property);
};

/** Whether a filter excludes anything. A list of all possible values excludes nothing. */
function excludesSome({ tagMatch: _how, status, priority, customAttributes, ...others }: ConversationFilter): boolean {
  return (
    Object.keys(others).length > 0 ||
    Object.keys(customAttributes ?? {}).length > 0 ||
    (status !== undefined && !STATUSES.every((one) => status.includes(one))) ||
    (priority !== undefined && !PRIORITIES.every((one) => priority.includes(one)))
  );
}

/** The body of POST /conversations/bulk. */
@Examples({
  'resolve two': { ids: ['conversation-1', 'conversation-2'], action: { type: 'setStatus', status: 'resolved' } },
  'tag what a filter finds': { filter: { status: ['open'], priority: ['urgent'] }, action: { type: 'addTags', tags: ['escalated'] } },
})
export class BulkDto {
  /** Either these conversations, without repetition, */
  @IfGiven()
  @IsList({ min: 1, max: MAX_BULK, unique: true })
  @IsVisibleText(128, { each: true })
  ids?: string[];
  /** or every conversation that this filter finds, with the names and values of the list's filters. */
  @IfGiven() @IsNested(ConversationFilterDto) filter?: ConversationFilterDto;
  @IsAction() action!: ActionDto;

  /** @throws ThreadlogError validation_failed */
  selection(): BulkSelection {
    const { ids, filter } = this;
    if ((ids === undefined) === (filter === undefined))
      throw new ThreadlogError('validation_failed', undefined, {
        errors: [{ field: 'ids', message: ids === undefined ? 'must be there, or filter' : 'must be absent beside filter' }],
      });
    if (ids !== undefined) return { ids };
    const narrowed = filter?.filter('filter') ?? {};
    if (!excludesSome(narrowed))
      throw new ThreadlogError('validation_failed', undefined, {
        errors: [{ field: 'filter', message: 'must leave some conversations out: every one of the organization would be changed' }],
      });
    return { filter: narrowed };
  }

  command(): BulkAction {
    const { action } = this;
    switch (action.type) {
      case 'setStatus':
        return { type: 'change', status: action.status };
      case 'setPriority':
        return { type: 'change', priority: action.priority };
      case 'setInbox':
        return { type: 'change', inboxId: action.inboxId };
      case 'setCustomAttributes':
        return { type: 'change', customAttributes: action.customAttributes };
      case 'assign':
        return { type: 'assign', ...action.assignment() };
      case 'snooze':
      case 'addTags':
      case 'removeTag':
        return action;
      case 'reply':
      case 'note':
        return { type: action.type, says: action.says(), ...(action.status === undefined ? {} : { status: action.status }) };
    }
  }
}
