import type { Recorded } from '../event-store/aggregate.js';
import { type DataKey, ERASED, type Sealed } from '../security/sealing.js';
import type { Conversation, ConversationEvent, LastMessage, MessageFacts } from './conversation.js';

/** A personal value as a reader sees it: the sealed value, or ERASED when its key is destroyed. */
export type Unsealed = unknown;

/** A personal value that is a text; ERASED is a text too. */
export const unsealedText = (value: Unsealed): string | null => (typeof value === 'string' ? value : null);

/*
 * The contexts in which values are sealed. Texts that may repeat include their message's id, so that equal texts do not give equal bytes;
 * subject and attributes do not, so that a decision can see that nothing would change.
 */
const SUBJECT = 'conversation.subject';
const ATTRIBUTE = 'conversation.attribute';
const contentContext = (messageId: string) => `message.content ${messageId}`;
const attachmentsContext = (messageId: string) => `message.attachments ${messageId}`;
const attributeContext = (name: string) => `${ATTRIBUTE} ${name}`;
const COMMENT = 'conversation.comment';

export interface MessageInput {
  readonly type: 'text' | 'attachment' | 'card';
  /** Absent only for attachments without a caption. */
  readonly content?: unknown;
  readonly attachments?: readonly unknown[];
}

export function sealMessage(key: DataKey, messageId: string, message: MessageInput): MessageFacts {
  return {
    messageId,
    contentType: message.type,
    ...(message.content === undefined ? {} : { content: key.seal(contentContext(messageId), message.content) }),
    ...(message.attachments === undefined ? {} : { attachments: key.seal(attachmentsContext(messageId), message.attachments) }),
  };
}

export const sealSubject = (key: DataKey, subject: string): Sealed => key.seal(SUBJECT, subject);
export const sealComment = (key: DataKey, comment: string): Sealed => key.seal(COMMENT, comment);

/** Seals names and values separately, so that a merge needs no plaintext; `null` (remove) stays null. */
export function sealAttributes(key: DataKey, attributes: Readonly<Record<string, unknown>>): Record<string, Sealed | null> {
  return Object.fromEntries(
    Object.entries(attributes).map(([name, value]) => [
      key.seal(ATTRIBUTE, name),
      value === null ? null : key.seal(attributeContext(name), value),
    ]),
  );
}

/** The event with its personal values unsealed; without the key they are ERASED, and attributes and their names are gone. */
export function unsealConversationEvent(
  event: Recorded<ConversationEvent>,
  key: DataKey | undefined,
): Recorded<ConversationEvent<Unsealed>> {
  const unseal = (context: string, sealed: Sealed): Unsealed => (key === undefined ? ERASED : key.unseal(context, sealed));
  // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- the default takes only events without a sealed field
  switch (event.type) {
    case 'ConversationOpened': {
      const { subject, customAttributes, ...data } = event.data;
      return {
        ...event,
        data: {
          ...data,
          ...(subject === undefined ? {} : { subject: unseal(SUBJECT, subject) }),
          ...(customAttributes === undefined ? {} : { customAttributes: unsealAttributes(key, customAttributes) }),
        },
      };
    }
    case 'MessageReceived':
      return { ...event, data: unsealMessage(key, event.data) };
    case 'MessageSent':
      return { ...event, data: { author: event.data.author, ...unsealMessage(key, event.data) } };
    case 'NoteAdded':
      return { ...event, data: { author: event.data.author, ...unsealMessage(key, event.data) } };
    case 'SubjectChanged':
      return { ...event, data: { subject: event.data.subject === null ? null : unseal(SUBJECT, event.data.subject) } };
    case 'CustomAttributesChanged':
      return {
        ...event,
        data: {
          set: unsealAttributes(key, event.data.set),
          removed: key === undefined ? [] : event.data.removed.map((name) => String(key.unseal(ATTRIBUTE, name as Sealed))),
        },
      };
    case 'ConversationRated': {
      const { comment, ...data } = event.data;
      return { ...event, data: { ...data, ...(comment === undefined ? {} : { comment: unseal(COMMENT, comment) }) } };
    }
    default:
      return event satisfies Recorded<ConversationEvent<never>>;
  }
}

/** Decision state with its personal values unsealed. */
export function unsealConversation(state: Conversation, key: DataKey | undefined): Conversation<Unsealed> {
  const { subject, lastMessage, rating, shown } = state;
  const unsealed = unsealedOrNone(key, lastMessage);
  const unseal = (context: string, sealed: Sealed): Unsealed => (key === undefined ? ERASED : key.unseal(context, sealed));
  return {
    ...state,
    subject: subject === null ? null : unseal(SUBJECT, subject),
    customAttributes: unsealAttributes(key, state.customAttributes),
    lastMessage: unsealed,
    rating: rating === null ? null : { ...rating, comment: rating.comment === null ? null : unseal(COMMENT, rating.comment) },
    shown: {
      ...shown,
      lastMessage: shown.lastMessage?.messageId === lastMessage?.messageId ? unsealed : unsealedOrNone(key, shown.lastMessage),
    },
  };
}

const unsealedOrNone = (key: DataKey | undefined, message: LastMessage | null) =>
  message === null ? null : unsealLastMessage(key, message);

/*
 * Single values, for readers that need no more of a conversation. Null stands for a value that is not there or whose key is destroyed.
 */

export const unsealOneSubject = ({ subject }: Pick<Conversation, 'subject'>, key: DataKey | undefined): Unsealed =>
  subject === null || key === undefined ? null : key.unseal(SUBJECT, subject);

export const unsealContent = ({ messageId, content }: MessageFacts, key: DataKey | undefined): Unsealed =>
  content === undefined || key === undefined ? null : key.unseal(contentContext(messageId), content);

export function unsealOneAttribute(
  { customAttributes }: Pick<Conversation, 'customAttributes'>,
  name: string,
  key: DataKey | undefined,
): Unsealed {
  const sealed = key === undefined ? undefined : customAttributes[key.seal(ATTRIBUTE, name)];
  return key === undefined || sealed === undefined ? null : key.unseal(attributeContext(name), sealed);
}

/** A stored message with its content unsealed. */
export function unsealLastMessage(key: DataKey | undefined, message: LastMessage): LastMessage<Unsealed> {
  const { type, author, createdAt } = message;
  const unsealed = unsealMessage(key, message);
  return author === undefined ? { type, createdAt, ...unsealed } : { type, createdAt, author, ...unsealed };
}

function unsealMessage(key: DataKey | undefined, message: MessageFacts): MessageFacts<Unsealed> {
  const { messageId, contentType, content, attachments } = message;
  if (key === undefined) return { messageId, contentType, content: ERASED };
  const text = content === undefined ? undefined : { content: key.unseal(contentContext(messageId), content) };
  if (attachments === undefined) return { messageId, contentType, ...text };
  return { messageId, contentType, attachments: key.unseal(attachmentsContext(messageId), attachments), ...text };
}

function unsealAttributes(key: DataKey | undefined, sealed: Readonly<Record<string, Sealed>>): Record<string, Unsealed> {
  if (key === undefined) return {};
  return Object.fromEntries(
    Object.entries(sealed).map(([name, value]) => {
      const unsealed = String(key.unseal(ATTRIBUTE, name as Sealed));
      return [unsealed, key.unseal(attributeContext(unsealed), value)];
    }),
  );
}
