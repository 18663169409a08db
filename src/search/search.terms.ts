import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { isPrefixAt, type Term } from './question.js';
import type { SearchedText } from './searched-texts.js';
import { type Word, wordsOf } from './words.js';

/*
 * Words as PostgreSQL's full text index takes them: tsvector and tsquery as texts, made here so that the database's dictionaries and settings
 * change nothing. Each word begins with its organization's mark: an index that holds the words of all organizations then finds those of
 * one without reading the others'. Two organizations may share a mark, so every statement names the organization as well.
 */

/** Marks by organization: each message asks for one, and a hash takes as long as the words of a short message. */
const marks = new LRUCache<string, string>({ max: 1_000 });

/** Four characters that nearly no two organizations share. */
export function markOf(organizationId: string): string {
  const known = marks.get(organizationId);
  if (known !== undefined) return known;
  const mark = createHash('sha256').update(organizationId).digest('base64url').slice(0, 4);
  marks.set(organizationId, mark);
  return mark;
}

/** PostgreSQL counts positions to here. */
const LAST_POSITION = 16_383;
/**
 * So many places of one word are kept, the first ones; PostgreSQL would keep 255. A phrase is found at these alone. A rank compares the
 * places of each two words, so half as many cost a quarter. In English the most frequent word stands 128 times in some 2,500 words.
 */
const MOST_POSITIONS = 128;
/** No phrase goes from one text to the next. */
const GAP = 20;

/** A tsvector of some texts. Words beyond the last position are found, but in no phrase. */
export function vectorOf(mark: string, texts: readonly SearchedText[]): string {
  // The places of each word, as they will be written. A word that stands beyond the last place alone has none.
  const places = new Map<string, { at: string; last: number; count: number }>();
  let before = 0;
  const add = (term: string, place: number) => {
    const known = places.get(term);
    if (known === undefined)
      places.set(term, place <= LAST_POSITION ? { at: `:${place}`, last: place, count: 1 } : { at: '', last: 0, count: 0 });
    else if (place <= LAST_POSITION && known.count < MOST_POSITIONS && known.last !== place) {
      known.at += known.count === 0 ? `:${place}` : `,${place}`;
      known.last = place;
      known.count++;
    }
  };
  for (const { text } of texts) {
    const words = wordsOf(text);
    for (const { term, also, position } of words) {
      add(term, before + position);
      if (also !== undefined) add(also, before + position);
    }
    before += (words.at(-1)?.position ?? 0) + GAP;
  }
  const vector: string[] = [];
  for (const [term, { at }] of places) vector.push(quoted(mark + term) + at);
  // Not one long concatenation, which V8 would keep as a tree of pieces until it is written.
  return vector.join(' ');
}

/** A tsquery that finds the term: its words side by side. */
export function queryOfTerm(mark: string, term: Term): string {
  const { words } = term;
  let query = '';
  for (const [i, word] of words.entries()) {
    const before = words[i - 1];
    if (before !== undefined) query += ` <${word.position - before.position}> `;
    query += queryOfWord(mark, word, isPrefixAt(term, i));
  }
  return `(${query})`;
}

/** @param goesOn true when longer words are found that begin so */
function queryOfWord(mark: string, { term, also }: Word, goesOn: boolean): string {
  const one = (spelling: string) => `${quoted(mark + spelling)}${goesOn ? ':*' : ''}`;
  return also === undefined ? one(term) : `(${one(term)} | ${one(also)})`;
}

/** A tsquery that finds what has all wanted terms and none of the excluded. */
export const queryOfTerms = (mark: string, wanted: readonly Term[], excluded: readonly Term[]): string =>
  [...wanted.map((term) => queryOfTerm(mark, term)), ...excluded.map((term) => `!${queryOfTerm(mark, term)}`)].join(' & ');

/** Words whose nearness is ranked: PostgreSQL compares all places of each two of them, in each text that is found. */
const RANKED_WORDS = 4;

/**
 * A tsquery by which texts that were found are ranked: the longest of its words, which tell the most. Words that may go on come last, since
 * a text may have thousands that begin so.
 */
export function queryOfRank(mark: string, wanted: readonly Term[]): string {
  const words = new Map<string, { readonly length: number; readonly goesOn: boolean }>();
  for (const term of wanted)
    for (const [i, word] of term.words.entries()) {
      const goesOn = isPrefixAt(term, i);
      words.set(queryOfWord(mark, word, goesOn), { length: word.term.length, goesOn });
    }
  return [...words]
    .toSorted(([, a], [, b]) => Number(a.goesOn) - Number(b.goesOn) || b.length - a.length)
    .slice(0, RANKED_WORDS)
    .map(([query]) => query)
    .join(' & ');
}

const quoted = (text: string) => (/['\\]/.test(text) ? `'${text.replace(/['\\]/g, '$&$&')}'` : `'${text}'`);

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
