import { ThreadlogError } from './errors.js';

/** How deep a body may nest: deeper JSON serves no route and costs every later step. */
const MAX_DEPTH = 20;

/** Names that reach an object's prototype in code that is careless with them. */
export const FORBIDDEN_KEYS: ReadonlySet<string> = new Set(['__proto__', 'constructor', 'prototype']);

/**
 * Parses a request's JSON body more strictly than JSON.parse: no duplicate names (the last would win silently), no names that reach a
 * prototype, bounded depth, no NUL and no lone surrogate in any text (PostgreSQL can hold neither).
 * @throws ThreadlogError malformed_json
 */
export function parseStrictJson(text: string): unknown {
  let value: unknown;
  try {
    // Checked before the parse, since JSON.parse recurses as deep as it is told to.
    checkDepth(text);
    value = JSON.parse(text);
  } catch (error) {
    if (error instanceof ThreadlogError) throw error;
    throw new ThreadlogError('malformed_json', 'the body is not valid JSON');
  }
  // Every body of this API is one. A list or null would reach a route as an object without fields, which a change takes for no change.
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ThreadlogError('malformed_json', 'the body is not a JSON object');
  let names = 0;
  const walk = (node: unknown): void => {
    if (typeof node === 'string') checkText(node);
    else if (Array.isArray(node)) node.forEach(walk);
    else if (typeof node === 'object' && node !== null)
      for (const key of Object.keys(node)) {
        names++;
        if (FORBIDDEN_KEYS.has(key)) throw new ThreadlogError('malformed_json', `the name ${key} is not allowed`);
        checkText(key);
        walk((node as Record<string, unknown>)[key]);
      }
  };
  walk(value);
  // JSON.parse folds duplicate names into one: fewer names than the text has means that one was lost.
  if (names !== countNames(text)) throw new ThreadlogError('malformed_json', 'a name appears twice in one object');
  return value;
}

function checkText(text: string): void {
  if (text.includes('\0')) throw new ThreadlogError('malformed_json', 'a text holds the character U+0000');
  if (!text.isWellFormed()) throw new ThreadlogError('malformed_json', 'a text holds a lone surrogate');
}

function checkDepth(text: string): void {
  let depth = 0;
  scan(text, (character) => {
    if (character === '{' || character === '[') {
      if (++depth > MAX_DEPTH) throw new ThreadlogError('malformed_json', `the body nests deeper than ${MAX_DEPTH} levels`);
    } else if (character === '}' || character === ']') depth--;
  });
}

/** In valid JSON every colon outside of a text follows a name. */
function countNames(text: string): number {
  let colons = 0;
  scan(text, (character) => {
    if (character === ':') colons++;
  });
  return colons;
}

/** Calls `visit` for the structural characters, which are those outside of texts. */
function scan(text: string, visit: (character: string) => void): void {
  const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:]/gs;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) if (match[0].length === 1) visit(match[0]);
}
