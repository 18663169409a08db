import { IsOptional, ValidateNested } from 'class-validator';
import { PRIORITIES, type Priority, type SettableStatus, STATUSES } from '../conversations/conversation.js';
import { IsMessage, type MessageDto } from '../conversations/message.dto.js';
import { Described, Examples, type JsonSchema } from '../http/request-schema.js';
import {
  Becomes,
  IfGiven,
  IfGivenOrWithout,
  instanceOf,
  IsInstant,
  IsNotBeside,
  IsOneOf,
  IsResourceId,
  IsTag,
  IsTrueOrFalse,
  IsTypedText,
  IsWhole,
  isRecord,
  NullIsAbsent,
  rule,
} from '../http/validation.js';
import { conditionsFaults, conditionsOf, MAX_SECONDS, triggerFaults, triggerOf } from './rule.check.js';
import { type Action, ACTIONS, type Conditions, type RuleFields, type RuleMessage, type Trigger } from './rule.js';
import { conditionSchema } from './rule.answer.js';
import { EVENT_TRIGGERS, TIME_TRIGGERS } from './rule-fields.js';

const MAX_NAME = 200;
const MAX_TAG = 100;
const MAX_ACTIONS = 20;
const MAX_ORDER = 1_000_000;

class RuleAssignDto {
  @IsOneOf(['assign']) type!: 'assign';
  /** An agent's or a team's id. */
  @IsResourceId() assigneeId!: string;
}
class RuleUnassignDto {
  @IsOneOf(['unassign']) type!: 'unassign';
}
class RuleTagDto {
  @IsOneOf(['addTag', 'removeTag']) type!: 'addTag' | 'removeTag';
  @IsTag(MAX_TAG) tag!: string;
}
class RuleMessageDto {
  @IsOneOf(['reply', 'note']) type!: 'reply' | 'note';
  @IsMessage() message!: MessageDto;
}
class RuleStatusDto {
  @IsOneOf(['setStatus']) type!: 'setStatus';
  @IsOneOf(['open', 'pending', 'resolved', 'closed'], { hint: 'the action snooze snoozes' }) status!: SettableStatus;
}
class RulePriorityDto {
  @IsOneOf(['setPriority']) type!: 'setPriority';
  @IsOneOf(PRIORITIES) priority!: Priority;
}
class RuleSnoozeDto {
  @IsOneOf(['snooze']) type!: 'snooze';
  /** An instant with a zone, or next_reply. */
  @IfGivenOrWithout('seconds')
  @IsInstant({ or: 'next_reply' })
  until?: string;
  /** Counted from the event, or from when the wait was over. */
  @IfGiven()
  @IsNotBeside('until')
  @IsWhole(1, MAX_SECONDS)
  seconds?: number;
}
/** Stands for an action of unknown type, so that the error lists the types. */
class RuleUntypedDto {
  @IsOneOf(ACTIONS) type!: string;
}

type ActionDto = RuleAssignDto | RuleUnassignDto | RuleTagDto | RuleMessageDto | RuleStatusDto | RulePriorityDto | RuleSnoozeDto;

const CLASSES = {
  assign: RuleAssignDto,
  unassign: RuleUnassignDto,
  addTag: RuleTagDto,
  removeTag: RuleTagDto,
  reply: RuleMessageDto,
  note: RuleMessageDto,
  setStatus: RuleStatusDto,
  setPriority: RulePriorityDto,
  snooze: RuleSnoozeDto,
} as const satisfies Record<(typeof ACTIONS)[number], new () => object>;

function actionDto(value: unknown): unknown {
  if (!isRecord(value)) return value;
  const { type } = value;
  return typeof type === 'string' && Object.hasOwn(CLASSES, type)
    ? instanceOf<object>(CLASSES[type as keyof typeof CLASSES], value)
    : instanceOf(RuleUntypedDto, { type });
}

const IsActions = (): PropertyDecorator => (target, property) => {
  Becomes((value) => (Array.isArray(value) ? value.map(actionDto) : value))(target, property);
  Described((of) => ({
    type: 'array',
    minItems: 1,
    maxItems: MAX_ACTIONS,
    items: { oneOf: [...new Set<new () => object>(Object.values(CLASSES))].map(of) },
  }))(target, property);
  ValidateNested({ each: true })(target, property);
  rule(
    'isActions',
    (value) => {
      if (!Array.isArray(value)) return 'must be a list';
      if (value.length === 0) return 'must not be empty';
      if (value.length > MAX_ACTIONS) return `must have at most ${MAX_ACTIONS} entries`;
      const bare = value.flatMap((one: unknown, i) => (isRecord(one) ? [] : [{ path: [i], message: 'must be an object' }]));
      return bare.length === 0 ? undefined : bare;
    },
    {},
  )(target, property);
};

const TRIGGER: JsonSchema = {
  oneOf: [
    { type: 'string', enum: EVENT_TRIGGERS },
    {
      type: 'object',
      properties: {
        type: { type: 'string', enum: TIME_TRIGGERS },
        seconds: { type: 'integer', minimum: 1, maximum: MAX_SECONDS },
        status: {
          anyOf: [{ type: 'string', enum: STATUSES }, { type: 'null' }],
          description: 'Only for in_status_for; any status when absent.',
        },
      },
      required: ['type', 'seconds'],
      additionalProperties: false,
    },
  ],
};

const IsTrigger = () => rule('isTrigger', triggerFaults, TRIGGER);

/** A list of conditions or a tree, in the shape in which they are answered. */
const IsConditions = (): PropertyDecorator => (target, property) => {
  Described((of) => ({ anyOf: [{ type: 'array', items: of(conditionSchema), description: 'All must hold.' }, of(conditionSchema)] }))(
    target,
    property,
  );
  rule('isConditions', conditionsFaults, {})(target, property);
};

@Examples({
  'assign enterprise customers': {
    trigger: 'conversation.created',
    conditions: [{ field: 'visitor.plan', operator: 'equals', value: 'enterprise' }],
    actions: [
      { type: 'assign', assigneeId: 'priority-team-id' },
      { type: 'addTag', tag: 'enterprise' },
    ],
  },
  'answer questions about refunds': {
    name: 'Refunds',
    trigger: 'message.received',
    conditions: [{ field: 'message.content', operator: 'contains', value: 'refund' }],
    actions: [
      { type: 'reply', message: 'Let me connect you with our billing team.' },
      { type: 'addTag', tag: 'refund-request' },
    ],
  },
  'close what has been resolved for a week': {
    name: 'Close',
    trigger: { type: 'in_status_for', status: 'resolved', seconds: 604_800 },
    conditions: [],
    actions: [{ type: 'setStatus', status: 'closed' }],
  },
})
export class CreateRuleDto {
  @NullIsAbsent() @IsTypedText(MAX_NAME) name?: string;
  @IsTrigger() trigger!: Trigger;
  @IsConditions() conditions!: Conditions;
  @IsActions() actions!: ActionDto[];
  /** True by default. */
  @NullIsAbsent() @IsTrueOrFalse() enabled?: boolean;
  /** Rules are asked from the smallest to the greatest; 0 by default. */
  @NullIsAbsent() @IsWhole(-MAX_ORDER, MAX_ORDER) order?: number;
  /** True: once this rule matches, later rules are not asked about the event. False by default. */
  @NullIsAbsent() @IsTrueOrFalse() stopOnMatch?: boolean;
}

@Examples({ 'switch it off': { enabled: false } })
export class ChangeRuleDto {
  @IsOptional() @IsTypedText(MAX_NAME) name?: string | null;
  @IfGiven() @IsTrigger() trigger?: Trigger;
  /** Replaced as a whole. */
  @IfGiven() @IsConditions() conditions?: Conditions;
  /** Replaced as a whole. */
  @IfGiven() @IsActions() actions?: ActionDto[];
  @IfGiven() @IsTrueOrFalse() enabled?: boolean;
  @IfGiven() @IsWhole(-MAX_ORDER, MAX_ORDER) order?: number;
  @IfGiven() @IsTrueOrFalse() stopOnMatch?: boolean;
}

/** A rule in its stored form, with its defaults. */
export const ruleOf = ({ name, trigger, conditions, actions, enabled, order, stopOnMatch }: CreateRuleDto): RuleFields => ({
  name: name ?? null,
  trigger: triggerOf(trigger),
  conditions: conditionsOf(conditions),
  actions: actionsOf(actions),
  enabled: enabled ?? true,
  order: order ?? 0,
  stopOnMatch: stopOnMatch ?? false,
});

/** Actions in their stored form: equal ones have equal JSON. */
export const actionsOf = (actions: readonly ActionDto[]): Action[] => actions.map(actionOf);

function actionOf(action: ActionDto): Action {
  switch (action.type) {
    case 'assign':
      return { type: action.type, assigneeId: action.assigneeId };
    case 'unassign':
      return { type: action.type };
    case 'addTag':
    case 'removeTag':
      return { type: action.type, tag: action.tag };
    case 'reply':
    case 'note':
      return { type: action.type, message: messageOf(action.message) };
    case 'setStatus':
      return { type: action.type, status: action.status };
    case 'setPriority':
      return { type: action.type, priority: action.priority };
    case 'snooze': {
      const { until, seconds } = action;
      const at = until === undefined || until === 'next_reply' ? until : new Date(until).toISOString();
      return { type: action.type, ...(at === undefined ? {} : { until: at }), ...(seconds === undefined ? {} : { seconds }) };
    }
  }
}

function messageOf(message: MessageDto): RuleMessage {
  switch (message.type) {
    case 'text':
      return message.content;
    case 'attachment': {
      const { content, attachments } = message;
      const files = attachments.map(({ name, url, type, size }) => ({ name, url, type, size }));
      return { type: message.type, ...(content === undefined ? {} : { content }), attachments: files };
    }
    case 'card': {
      const { title, description, actions } = message.content;
      const buttons = actions?.map(({ label, url, action }) => ({
        label,
        ...(url === undefined ? {} : { url }),
        ...(action === undefined ? {} : { action }),
      }));
      return {
        type: message.type,
        content: { title, ...(description === undefined ? {} : { description }), ...(buttons === undefined ? {} : { actions: buttons }) },
      };
    }
  }
}
