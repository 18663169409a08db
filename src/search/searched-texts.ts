import type { LastMessage } from '../conversations/conversation.js';

/* The texts of messages and conversations in which a search looks, each with the path that highlights name. Pure. */

export interface SearchedText {
  /** The path in the hit: `message.content`, `tags`. */
  readonly field: string;
  readonly text: string;
}

/** Replaces what was erased. Nobody finds it. */
const ERASED = '[erased]';

const texts = (field: string, value: unknown): SearchedText[] =>
  typeof value === 'string' && value !== '' && value !== ERASED ? [{ field, text: value }] : [];
const partOf = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[name] : undefined;
const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** A message's text, a card's texts, and the names of attachments. Addresses are not searched. */
export function textsOfMessage({ content, attachments }: Pick<LastMessage<unknown>, 'content' | 'attachments'>): SearchedText[] {
  // Nearly all messages are one text.
  if (typeof content === 'string' && attachments === undefined) return texts('message.content', content);
  return [
    ...texts('message.content', content),
    ...texts('message.content.title', partOf(content, 'title')),
    ...texts('message.content.description', partOf(content, 'description')),
    ...listOf(partOf(content, 'actions')).flatMap((action, i) => texts(`message.content.actions[${i}].label`, partOf(action, 'label'))),
    ...listOf(attachments).flatMap((attachment, i) => texts(`message.attachments[${i}].name`, partOf(attachment, 'name'))),
  ];
}

/** What a conversation itself is found by. */
export interface OwnFields {
  readonly subject: unknown;
  readonly tags: readonly string[];
  readonly customAttributes: Readonly<Record<string, unknown>>;
}

/** Attributes are searched by their values: texts and numbers. */
export function textsOfConversation({ subject, tags, customAttributes }: OwnFields): SearchedText[] {
  return [
    ...texts('subject', subject),
    ...tags.flatMap((tag) => texts('tags', tag)),
    // Sorted, since a state that was read back may have its attributes in another order.
    ...Object.keys(customAttributes)
      .sort()
      .flatMap((name) => {
        const value = customAttributes[name];
        return texts(`customAttributes.${name}`, typeof value === 'number' ? String(value) : value);
      }),
  ];
}

export const textsOfVisitor = ({ name, email }: { readonly name: unknown; readonly email: unknown }): SearchedText[] => [
  ...texts('visitor.name', name),
  ...texts('visitor.email', email),
];
