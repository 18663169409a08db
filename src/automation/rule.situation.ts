import type { Company } from '../companies/company.js';
import type { Conversation, MessageFacts } from '../conversations/conversation.js';
import { unsealContent, unsealOneAttribute, unsealOneSubject } from '../conversations/conversation.sealing.js';
import type { Actor } from '../event-store/aggregate.js';
import type { Inbox } from '../inboxes/inbox.js';
import { isWithinWorkingHours } from '../inboxes/working-hours.js';
import type { DataKey } from '../security/sealing.js';
import type { Visitor } from '../visitors/visitor.js';
import { unsealOneAttributeOf, unsealOneField } from '../visitors/visitor.sealing.js';
import type { Seen, Situation } from './evaluate.js';
import type { AttributePrefix, FieldName, FixedField } from './rule-fields.js';

/** Everything that conditions may look at. Personal values are sealed, and opened one by one as they are asked for. */
export interface SituationParts {
  /** When the event happened, or the wait was over (ms). */
  readonly at: number;
  readonly actorType: Actor['type'];
  readonly conversation: Conversation;
  /** The conversation before the event; null where no event changed it, as for time triggers. */
  readonly before: Conversation | null;
  /** The event's message, or else the conversation's last. */
  readonly message: MessageFacts | null;
  readonly visitor: Visitor | null;
  readonly company: Company | null;
  readonly inbox: Inbox | null;
  /** Undefined when the visitor was erased: personal values are then not set. */
  readonly key: DataKey | undefined;
}

/** Remembers each value, since several rules ask for the same. */
export function situationOf(parts: SituationParts): Situation {
  const known = new Map<string, Seen>();
  return (name) => {
    const label = 'fixed' in name ? name.fixed : `${name.prefix}${name.attribute}`;
    let seen = known.get(label);
    if (seen === undefined) known.set(label, (seen = valueOf(parts, name)));
    return seen;
  };
}

function valueOf(parts: SituationParts, name: FieldName): Seen {
  return 'fixed' in name ? fixedValue(parts, name.fixed) : attributeValue(parts, name.prefix, name.attribute);
}

function fixedValue(parts: SituationParts, field: FixedField): Seen {
  const { conversation, message, visitor, company, inbox, key } = parts;
  switch (field) {
    case 'message.content':
      return message === null ? null : spoken(unsealContent(message, key));
    case 'message.contentType':
      return message?.contentType ?? null;
    case 'visitor.name':
      return visitor === null ? null : text(unsealOneField(visitor, 'name', key));
    case 'visitor.email':
      return visitor === null ? null : text(unsealOneField(visitor, 'email', key));
    case 'visitor.phone':
      return visitor === null ? null : text(unsealOneField(visitor, 'phone', key));
    case 'visitor.plan':
      return visitor?.plan ?? null;
    case 'visitor.userId':
      return visitor?.userId ?? null;
    case 'company.id':
      return visitor?.companyId ?? null;
    case 'company.name':
      return company?.name ?? null;
    case 'conversation.status':
      return conversation.status;
    case 'conversation.priority':
      return conversation.priority;
    case 'conversation.subject':
      return text(unsealOneSubject(conversation, key));
    case 'conversation.channel':
      return conversation.channel;
    case 'conversation.inboxId':
      return conversation.inboxId;
    case 'conversation.assigneeId':
      return conversation.assignee?.id ?? null;
    case 'conversation.teamId':
      return conversation.team?.id ?? null;
    case 'conversation.tags':
      return conversation.tags;
    case 'conversation.messageCount':
      return conversation.messageCount;
    case 'previous.status':
      return previous(parts, ({ status }) => status);
    case 'previous.priority':
      return previous(parts, ({ priority }) => priority);
    case 'previous.subject':
      return previous(parts, (one) => text(unsealOneSubject(one, key)));
    case 'previous.inboxId':
      return previous(parts, ({ inboxId }) => inboxId);
    case 'previous.assigneeId':
      return previous(parts, ({ assignee }) => assignee?.id ?? null);
    case 'previous.teamId':
      return previous(parts, ({ team }) => team?.id ?? null);
    case 'previous.tags':
      return previous(parts, ({ tags }) => tags);
    case 'inbox.withinWorkingHours':
      return inbox === null ? null : inbox.workingHours === null || isWithinWorkingHours(inbox.workingHours, parts.at);
    case 'actor.type':
      return parts.actorType;
  }
}

function attributeValue(parts: SituationParts, prefix: AttributePrefix, name: string): Seen {
  const { conversation, visitor, company, key } = parts;
  switch (prefix) {
    case 'visitor.attributes.':
      return visitor === null ? null : plain(unsealOneAttributeOf(visitor, name, key));
    case 'company.attributes.':
      return company !== null && Object.hasOwn(company.attributes, name) ? (company.attributes[name] ?? null) : null;
    case 'conversation.customAttributes.':
      return plain(unsealOneAttribute(conversation, name, key));
    case 'previous.customAttributes.':
      return previous(parts, (one) => plain(unsealOneAttribute(one, name, key)));
  }
}

/** A value before the event, if the event changed it. */
function previous({ before, conversation }: SituationParts, of: (one: Conversation) => Seen): Seen {
  if (before?.exists !== true) return null;
  const was = of(before);
  return JSON.stringify(was) === JSON.stringify(of(conversation)) ? null : was;
}

const text = (value: unknown): Seen => (typeof value === 'string' ? value : null);
const plain = (value: unknown): Seen =>
  typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? value : null;

/** The text of a message; a card says its title and description. */
function spoken(content: unknown): Seen {
  if (typeof content !== 'object' || content === null) return text(content);
  const { title, description } = content as { readonly title?: unknown; readonly description?: unknown };
  return [title, description].filter((part) => typeof part === 'string').join('\n');
}
