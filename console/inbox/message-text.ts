import type { MessageAnswer } from '../../src/conversations/conversation.answer.js';

/** Characters of a row; the rest is cut off by its width anyway. */
const SNIPPET = 160;

/** A message in one line. */
export function snippetOf(message: MessageAnswer | null): string {
  if (message === null) return '';
  const { content, attachments } = message;
  if (typeof content === 'string') return content.slice(0, SNIPPET);
  if (content !== null) return content.title;
  return attachments?.[0]?.name ?? 'A message that your role may not read';
}

/** An address that may be opened: text of others never becomes a script. */
export function safeAddress(url: string): string | undefined {
  return URL.canParse(url) && /^https?:$/.test(new URL(url).protocol) ? url : undefined;
}
