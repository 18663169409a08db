import { ThreadlogError } from '../errors.js';
import { isRounded, roundedNumbers } from './exact-numbers.js';

/** How deep a body may nest: no route needs deeper JSON, and it costs every later step. */
const MAX_DEPTH = 20;
/** How many rounded numbers an error lists. */
const MAX_NAMED = 100;

/** Names that reach an object's prototype in careless code. */
export const FORBIDDEN_KEYS: ReadonlySet<string> = new Set(['__proto__', 'constructor', 'prototype']);

/**
 * Parses a request's JSON body, or a line of an import, more strictly than JSON.parse: no duplicate names (JSON.parse keeps only the last),
 * no names that reach a prototype, bounded depth, no NUL and no lone surrogate in any text (PostgreSQL stores neither), and no number that
 * JSON.parse rounds.
 * @throws ThreadlogError malformed_json; validation_failed with the numbers that would be rounded
 */
export function parseStrictJson(text: string): unknown {
  // Checked before the parse, since JSON.parse recurses as deep as the text nests.
  const seen = scan(text);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ThreadlogError('malformed_json', 'the body is not valid JSON');
  }
  // Every body of this API is an object. A list or null would reach a route as an object without fields, and count as an empty change.
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
  // JSON.parse merges duplicate names, so fewer names than in the text means that a name was lost.
  if (names !== seen.names) throw new ThreadlogError('malformed_json', 'a name appears twice in one object');
  if (seen.rounded) throw new ThreadlogError('validation_failed', undefined, { errors: roundedNumbers(text, MAX_NAMED) });
  return value;
}

function checkText(text: string): void {
  if (text.includes('\0')) throw new ThreadlogError('malformed_json', 'a text holds the character U+0000');
  if (!text.isWellFormed()) throw new ThreadlogError('malformed_json', 'a text holds a lone surrogate');
}

/**
 * Facts that JSON.parse does not report: how many names the text has (in valid JSON every colon outside a string follows a name), and
 * whether a number in it would be rounded.
 * @throws ThreadlogError malformed_json when it nests too deep
 */
function scan(text: string): { readonly names: number; readonly rounded: boolean } {
  let depth = 0;
  let names = 0;
  let rounded = false;
  const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:]|-?\d[\d.eE+-]*/gs;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const [found] = match;
    if (found === '{' || found === '[') {
      if (++depth > MAX_DEPTH) throw new ThreadlogError('malformed_json', `the body nests deeper than ${MAX_DEPTH} levels`);
    } else if (found === '}' || found === ']') depth--;
    else if (found === ':') names++;
    else if (!rounded && !found.startsWith('"')) rounded = isRounded(found);
  }
  return { names, rounded };
}
