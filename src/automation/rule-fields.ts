import { CHANNELS, CONTENT_TYPES, PRIORITIES, STATUSES } from '../conversations/conversation.js';
import { PUBLIC_EVENTS, type PublicEventType } from '../conversations/public-event.js';

/*
 * What conditions of automation rules may look at, and how. The evaluator, the checks of a saved rule and the documentation read these
 * tables.
 */

/** The public events that trigger rules, in the order of the documentation. */
export const EVENT_TRIGGERS = PUBLIC_EVENTS;

/** The waits that trigger rules when they have lasted for a time. */
export const TIME_TRIGGERS = ['unassigned_for', 'no_agent_reply_for', 'no_visitor_reply_for', 'in_status_for'] as const;
export type TimeTriggerType = (typeof TIME_TRIGGERS)[number];
export type TriggerType = PublicEventType | TimeTriggerType;

/** text ignores case; id and choice compare exactly; tags is a list of texts; attribute is a text, a number or true/false. */
export type FieldType = 'text' | 'id' | 'choice' | 'tags' | 'number' | 'flag' | 'attribute';

export interface Field {
  readonly type: FieldType;
  /** The values of a choice. */
  readonly choices?: readonly string[];
  /** The value is a visitor's, and traces keep it sealed. */
  readonly personal?: true;
  /** What the value is. */
  readonly says: string;
}

const ACTORS = ['agent', 'apiKey', 'visitor', 'automation', 'system'] as const;

/** Fields with a fixed name. */
export const FIELDS = {
  'message.content': {
    type: 'text',
    personal: true,
    says: "the text of the event's message, or of the last message where the event has none; of a card, its title and description",
  },
  'message.contentType': { type: 'choice', choices: CONTENT_TYPES, says: 'what that message is' },
  'visitor.name': { type: 'text', personal: true, says: "the visitor's name" },
  'visitor.email': { type: 'text', personal: true, says: "the visitor's e-mail address" },
  'visitor.phone': { type: 'text', personal: true, says: "the visitor's telephone number" },
  'visitor.plan': { type: 'text', says: "the visitor's plan" },
  'visitor.userId': { type: 'id', says: "the visitor's id in your own system" },
  'company.id': { type: 'id', says: "the id of the visitor's company" },
  'company.name': { type: 'text', says: "the name of the visitor's company" },
  'conversation.status': { type: 'choice', choices: STATUSES, says: 'the status after the event' },
  'conversation.priority': { type: 'choice', choices: PRIORITIES, says: 'the priority after the event' },
  'conversation.subject': { type: 'text', personal: true, says: 'the subject after the event' },
  'conversation.channel': { type: 'choice', choices: CHANNELS, says: 'how the conversation came in' },
  'conversation.inboxId': { type: 'id', says: 'the inbox after the event' },
  'conversation.assigneeId': { type: 'id', says: 'the agent or team that is assigned after the event' },
  'conversation.teamId': { type: 'id', says: 'the team whose queue it is in after the event' },
  'conversation.tags': { type: 'tags', says: 'the tags after the event' },
  'conversation.messageCount': { type: 'number', says: 'the number of messages and notes, the event included' },
  'previous.status': { type: 'choice', choices: STATUSES, says: 'the status before an event that changed it' },
  'previous.priority': { type: 'choice', choices: PRIORITIES, says: 'the priority before an event that changed it' },
  'previous.subject': { type: 'text', personal: true, says: 'the subject before an event that changed it' },
  'previous.inboxId': { type: 'id', says: 'the inbox before an event that changed it' },
  'previous.assigneeId': { type: 'id', says: 'the assignee before an event that changed it' },
  'previous.teamId': { type: 'id', says: 'the team before an event that changed it' },
  'previous.tags': { type: 'tags', says: 'the tags before an event that changed them' },
  'inbox.withinWorkingHours': {
    type: 'flag',
    says: "whether the event happened within the working hours that the conversation's inbox had then; true for an inbox without working hours",
  },
  'actor.type': {
    type: 'choice',
    choices: ACTORS,
    says: 'who caused the event; for a time trigger, who caused the event that began the wait',
  },
} as const satisfies Readonly<Record<string, Field>>;
export type FixedField = keyof typeof FIELDS;

/** Fields whose name ends with the name of an attribute. */
export const ATTRIBUTE_FIELDS = {
  'visitor.attributes.': { type: 'attribute', personal: true, says: "an attribute of the visitor's" },
  'company.attributes.': { type: 'attribute', says: "an attribute of the visitor's company" },
  'conversation.customAttributes.': { type: 'attribute', personal: true, says: 'a custom attribute after the event' },
  'previous.customAttributes.': { type: 'attribute', personal: true, says: 'a custom attribute before an event that changed it' },
} as const satisfies Readonly<Record<string, Field>>;
export type AttributePrefix = keyof typeof ATTRIBUTE_FIELDS;

const isFixed = (name: string): name is FixedField => Object.hasOwn(FIELDS, name);
const PREFIXES = Object.keys(ATTRIBUTE_FIELDS) as AttributePrefix[];

/** A field's name in its parts. */
export type FieldName =
  | { readonly fixed: FixedField; readonly field: Field }
  | { readonly prefix: AttributePrefix; readonly attribute: string; readonly field: Field };

/** Undefined when no field has this name. */
export function fieldNamed(name: string): FieldName | undefined {
  if (isFixed(name)) return { fixed: name, field: FIELDS[name] };
  const prefix = PREFIXES.find((one) => name.startsWith(one) && name.length > one.length);
  return prefix === undefined ? undefined : { prefix, attribute: name.slice(prefix.length), field: ATTRIBUTE_FIELDS[prefix] };
}

export const OPERATORS = [
  'equals',
  'not_equals',
  'contains',
  'not_contains',
  'starts_with',
  'ends_with',
  'in',
  'not_in',
  'greater_than',
  'less_than',
  'is_set',
  'is_not_set',
  'matches',
] as const;
export type Operator = (typeof OPERATORS)[number];

/** Whether a field has a value at all: what every type can be asked. */
const PRESENCE = ['is_set', 'is_not_set'] as const;
const EQUALITY = ['equals', 'not_equals', 'in', 'not_in'] as const;
const TEXTUAL = ['contains', 'not_contains', 'starts_with', 'ends_with', 'matches'] as const;
const ORDER = ['greater_than', 'less_than'] as const;

/** The operators of each type of field. */
export const OPERATORS_OF: { readonly [T in FieldType]: readonly Operator[] } = {
  text: [...EQUALITY, ...TEXTUAL, ...PRESENCE],
  id: [...EQUALITY, ...PRESENCE],
  choice: [...EQUALITY, ...PRESENCE],
  tags: ['contains', 'not_contains', 'in', 'not_in', ...PRESENCE],
  number: [...EQUALITY, ...ORDER, ...PRESENCE],
  flag: ['equals', 'not_equals', ...PRESENCE],
  attribute: [...EQUALITY, ...TEXTUAL, ...ORDER, ...PRESENCE],
};

/** What of a conversation the event of a trigger can change: the ends of `previous.` fields. */
export const CHANGED_BY: { readonly [T in TriggerType]: readonly string[] } = {
  'conversation.created': [],
  'conversation.updated': ['status', 'priority', 'subject', 'inboxId', 'assigneeId', 'teamId', 'tags', 'customAttributes'],
  'conversation.assigned': ['assigneeId', 'teamId'],
  'conversation.unassigned': ['assigneeId', 'teamId'],
  'conversation.snoozed': ['status'],
  'conversation.reopened': ['status'],
  'conversation.resolved': ['status'],
  'conversation.closed': ['status'],
  'conversation.tagged': ['tags'],
  'conversation.rated': [],
  'message.received': [],
  'message.sent': [],
  'note.added': [],
  unassigned_for: [],
  no_agent_reply_for: [],
  no_visitor_reply_for: [],
  in_status_for: [],
};

/** How many characters of a text `matches` looks at. */
export const MATCHED_CHARACTERS = 2_000;
/**
 * The longest pattern, in characters, and the most steps that it may compile to: together with MATCHED_CHARACTERS they bound the time of
 * one look, measured at 11 ms for the worst of a thousand random patterns on random texts. Rules may have been stored under a greater bound.
 */
export const MAX_PATTERN = 200;
export const MAX_PATTERN_STEPS = 100;
