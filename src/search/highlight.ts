import { fold, type Folded } from './fold.js';
import { isPrefixAt, type Term } from './question.js';
import type { SearchedText } from './searched-texts.js';
import { isLoneCharacter, type Word, wordsOf } from './words.js';

/* Where the words of a question stand in a text that was found. Pure. */

/** A text, or the part of a long one, with the places to be marked: from, included, to, excluded, in code points of `text`. */
export interface Highlight {
  readonly field: string;
  readonly text: string;
  readonly ranges: readonly (readonly [from: number, to: number])[];
}

type Range = readonly [from: number, to: number];

/** A longer text is shown in part (code points). */
const MAX_TEXT = 300;
/** What is shown before the first marked place. */
const BEFORE = 60;
/** Most texts of one hit. */
const MOST = 20;

/**
 * The texts that have any of the terms.
 * @param pieces names the fields in which a word may be any piece of the text
 */
export function highlightsOf(terms: readonly Term[], texts: readonly SearchedText[], pieces: ReadonlySet<string>): Highlight[] {
  const found: Highlight[] = [];
  for (const { field, text } of texts) {
    if (found.length === MOST) break;
    const ranges = rangesIn(text, terms, pieces.has(field));
    if (ranges.length > 0) found.push({ field, ...excerpt(text, ranges) });
  }
  return found;
}

/** In UTF-16 units of the text, in order, none touching another. */
function rangesIn(given: string, terms: readonly Term[], pieces: boolean): readonly Range[] {
  const folded = fold(given);
  const words = wordsOf(given, folded);
  const at = new Map(words.map((word) => [word.position, word]));
  const ranges: Range[] = [];
  for (const term of terms) {
    for (const word of words) {
      const end = endOf(term, word, at);
      if (end !== undefined) ranges.push(inGiven(folded, word.start, end));
    }
    if (pieces && !term.quoted && Array.from(term.text).length >= PIECE)
      for (let i = folded.text.indexOf(term.text); i !== -1; i = folded.text.indexOf(term.text, i + 1))
        ranges.push(inGiven(folded, i, i + term.text.length));
  }
  return merged(ranges);
}

/** Shortest piece of a name or an address that is found. */
const PIECE = 3;

/** Where the term ends that begins with this word; undefined when it does not begin here. */
function endOf(term: Term, first: Word, at: ReadonlyMap<number, Word>): number | undefined {
  let end: number | undefined;
  const begin = term.words[0]?.position ?? 1;
  for (const [i, asked] of term.words.entries()) {
    const word = at.get(first.position + asked.position - begin);
    if (word === undefined || !isFound(word, asked, isPrefixAt(term, i))) return undefined;
    // One character is found as the first of two, and is marked alone.
    end = isLoneCharacter(asked.term) ? word.start + asked.term.length : word.end;
  }
  return end;
}

function isFound(word: Word, asked: Word, prefix: boolean): boolean {
  for (const one of [word.term, word.also])
    for (const wanted of [asked.term, asked.also])
      if (one !== undefined && wanted !== undefined && (prefix ? one.startsWith(wanted) : one === wanted)) return true;
  return false;
}

const inGiven = ({ from, to }: Folded, start: number, end: number): Range => [from?.[start] ?? start, to?.[end - 1] ?? end];

function merged(ranges: readonly Range[]): readonly Range[] {
  const found: Range[] = [];
  for (const [from, to] of ranges.toSorted((a, b) => a[0] - b[0] || a[1] - b[1])) {
    const last = found.at(-1);
    if (last !== undefined && from <= last[1]) found[found.length - 1] = [last[0], Math.max(last[1], to)];
    else found.push([from, to]);
  }
  return found;
}

/** The text in code points, a long one around its first marked place. */
function excerpt(text: string, ranges: readonly Range[]): Pick<Highlight, 'text' | 'ranges'> {
  // Counts the characters before each place once.
  const places = new Map<number, number>();
  for (const one of ranges.flat()) places.set(one, 0);
  const characters: string[] = [];
  let unit = 0;
  for (const character of text) {
    if (places.has(unit)) places.set(unit, characters.length);
    characters.push(character);
    unit += character.length;
  }
  if (places.has(unit)) places.set(unit, characters.length);
  const counted = ranges.map(([from, to]): Range => [places.get(from) ?? 0, places.get(to) ?? 0]);
  if (characters.length <= MAX_TEXT) return { text, ranges: counted };
  const begin = Math.max(0, Math.min((counted[0]?.[0] ?? 0) - BEFORE, characters.length - MAX_TEXT));
  const end = begin + MAX_TEXT;
  return {
    text: characters.slice(begin, end).join(''),
    ranges: counted.filter(([from]) => from < end).map(([from, to]): Range => [from - begin, Math.min(to, end) - begin]),
  };
}
