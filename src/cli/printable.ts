import { replaceUnseen } from '../texts/unseen-characters.js';

/**
 * Makes a foreign text (a name, a line of a file, an error that quotes either) safe for a terminal: on one line, and unable to steer the
 * terminal, hide a part or reverse the order. Invisible characters are escaped, such as \u{1b} for an escape. Joiners within emoji and
 * words stay.
 */
export const printable = (text: string): string =>
  replaceUnseen(text, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);

/**
 * JSON that is the same document for every reader and harmless in a terminal. JSON.stringify leaves U+007F to U+009F, bidirectional marks
 * and the like as they are; this writes them as JSON escapes.
 */
export const printableJson = (value: unknown): string => replaceUnseen(JSON.stringify(value), escaped);

const escaped = (character: string) =>
  Array.from({ length: character.length }, (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`).join('');
