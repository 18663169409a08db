import { createHash } from 'node:crypto';
import { isPrefixAt, type Term } from './question.js';
import type { SearchedText } from './searched-texts.js';
import { wordsOf } from './words.js';

/*
 * Words as PostgreSQL's full text index takes them: tsvector and tsquery as texts, made here so that the database's dictionaries and settings
 * change nothing. Each word begins with its organization's mark: an index that holds the words of all organizations then finds those of
 * one without reading the others'. Two organizations may share a mark, so every statement names the organization as well.
 */

/** Four characters that nearly no two organizations share. */
export const markOf = (organizationId: string): string => createHash('sha256').update(organizationId).digest('base64url').slice(0, 4);

/** PostgreSQL counts positions to here, and keeps so many of one word. */
const LAST_POSITION = 16_383;
const MOST_POSITIONS = 255;
/** No phrase goes from one text to the next. */
const GAP = 20;

/** A tsvector of some texts. Words beyond the last position are found, but in no phrase. */
export function vectorOf(mark: string, texts: readonly SearchedText[]): string {
  const places = new Map<string, number[]>();
  let before = 0;
  for (const { text } of texts) {
    const words = wordsOf(text);
    for (const { term, also, position } of words)
      for (const one of also === undefined ? [term] : [term, also]) {
        let known = places.get(one);
        if (known === undefined) places.set(one, (known = []));
        const place = before + position;
        if (place <= LAST_POSITION && known.length < MOST_POSITIONS && known.at(-1) !== place) known.push(place);
      }
    before += (words.at(-1)?.position ?? 0) + GAP;
  }
  return [...places].map(([term, at]) => `${quoted(mark + term)}${at.length === 0 ? '' : `:${at.join(',')}`}`).join(' ');
}

/** A tsquery that finds the term: its words side by side. */
export function queryOfTerm(mark: string, term: Term): string {
  const { words } = term;
  let query = '';
  for (const [i, { term: word, also, position }] of words.entries()) {
    const star = isPrefixAt(term, i) ? ':*' : '';
    const one = (spelling: string) => `${quoted(mark + spelling)}${star}`;
    const before = words[i - 1];
    if (before !== undefined) query += ` <${position - before.position}> `;
    query += also === undefined ? one(word) : `(${one(word)} | ${one(also)})`;
  }
  return `(${query})`;
}

/** A tsquery that finds what has all wanted terms and none of the excluded. */
export const queryOfTerms = (mark: string, wanted: readonly Term[], excluded: readonly Term[]): string =>
  [...wanted.map((term) => queryOfTerm(mark, term)), ...excluded.map((term) => `!${queryOfTerm(mark, term)}`)].join(' & ');

const quoted = (text: string) => `'${text.replace(/['\\]/g, '$&$&')}'`;

/** Length of the parts by which any piece of a name or an address is found. */
export const GRAM = 3;

/** All parts of a folded text of this length, each once. */
export function gramsOf(mark: string, ...texts: readonly (string | null)[]): string[] {
  const found = new Set<string>();
  for (const text of texts) {
    const characters = Array.from(text ?? '');
    for (let i = 0; i + GRAM <= characters.length; i++) found.add(mark + characters.slice(i, i + GRAM).join(''));
  }
  return [...found];
}
