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
 * The work of one hit: so many comparisons of a word of its texts with a word of a term, some 20 ms. What comes after is not marked. A text
 * of 25,000 words needs fewer, unless it has the beginnings of many phrases again and again.
 */
const MOST_COMPARISONS = 200_000;

/** What is left of it. */
interface Budget {
  comparisons: number;
}

/** The terms of a question, by what they begin with. */
interface Sought {
  /** Terms by each spelling of their first word. */
  readonly whole: ReadonlyMap<string, readonly Term[]>;
  /** Terms whose only word may go on, by the first UTF-16 unit of each spelling. */
  readonly beginnings: ReadonlyMap<string, readonly Term[]>;
  /** Texts that may be any piece of a name or an address. */
  readonly pieces: ReadonlySet<string>;
}

/**
 * The texts that have any of the terms.
 * @param pieces names the fields in which a word may be any piece of the text
 */
export function highlightsOf(terms: readonly Term[], texts: readonly SearchedText[], pieces: ReadonlySet<string>): Highlight[] {
  const sought = soughtOf(terms);
  const budget: Budget = { comparisons: MOST_COMPARISONS };
  const found: Highlight[] = [];
  for (const { field, text } of texts) {
    if (found.length === MOST) break;
    const ranges = rangesIn(text, sought, pieces.has(field), budget);
    if (ranges.length > 0) found.push({ field, ...excerpt(text, ranges) });
  }
  return found;
}

function soughtOf(terms: readonly Term[]): Sought {
  const whole = new Map<string, Term[]>();
  const beginnings = new Map<string, Term[]>();
  const known = new Set<string>();
  for (const term of terms) {
    const { words, prefix } = term;
    const [first] = words;
    // Equal terms mark the same places.
    const same = JSON.stringify([prefix, words.map(({ term: word, also, position }) => [word, also, position])]);
    if (first === undefined || known.has(same)) continue;
    known.add(same);
    const goesOn = isPrefixAt(term, 0);
    const spellings = [first.term, ...(first.also === undefined ? [] : [first.also])];
    const by = goesOn ? beginnings : whole;
    for (const key of new Set(goesOn ? spellings.map((spelling) => spelling.slice(0, 1)) : spellings)) {
      const others = by.get(key);
      if (others === undefined) by.set(key, [term]);
      else others.push(term);
    }
  }
  const pieces = terms.filter(({ quoted, text }) => !quoted && Array.from(text).length >= PIECE).map(({ text }) => text);
  return { whole, beginnings, pieces: new Set(pieces) };
}

/** In UTF-16 units of the text, in order, none touching another. A long text has those that are shown, and maybe more. */
function rangesIn(given: string, { whole, beginnings, pieces }: Sought, anyPiece: boolean, budget: Budget): readonly Range[] {
  if (budget.comparisons <= 0) return [];
  const folded = fold(given);
  const words = wordsOf(given, folded);
  const at = new Map(words.map((word) => [word.position, word]));
  const ranges: Range[] = [];
  for (const word of words) {
    if (budget.comparisons <= 0) break;
    // What stands so far behind the first place is not shown; a character is at most two units.
    const [first] = ranges;
    if (first !== undefined && inGiven(folded, word.start, word.end)[0] - first[0] > 2 * MAX_TEXT) break;
    for (const spelling of word.also === undefined ? [word.term] : [word.term, word.also])
      for (const terms of [whole.get(spelling), beginnings.get(spelling.slice(0, 1))])
        for (const term of terms ?? []) {
          const end = endOf(term, word, at, budget);
          if (end !== undefined) ranges.push(inGiven(folded, word.start, end));
        }
  }
  if (anyPiece)
    for (const piece of pieces)
      for (let i = folded.text.indexOf(piece); i !== -1 && budget.comparisons > 0; i = folded.text.indexOf(piece, i + 1)) {
        budget.comparisons--;
        ranges.push(inGiven(folded, i, i + piece.length));
      }
  return merged(ranges);
}

/** Shortest piece of a name or an address that is found. */
const PIECE = 3;

/** Where the term ends that begins with this word; undefined when it does not begin here. */
function endOf(term: Term, first: Word, at: ReadonlyMap<number, Word>, budget: Budget): number | undefined {
  let end: number | undefined;
  const begin = term.words[0]?.position ?? 1;
  // Without entries(), which would make a pair for each comparison.
  for (let i = 0; i < term.words.length; i++) {
    const asked = term.words[i];
    if (asked === undefined || budget.comparisons-- <= 0) return undefined;
    const word = at.get(first.position + asked.position - begin);
    if (word === undefined || !isFound(word, asked, isPrefixAt(term, i))) return undefined;
    // One character is found as the first of two, and is marked alone.
    end = isLoneCharacter(asked.term) ? word.start + asked.term.length : word.end;
  }
  return end;
}

function isFound(word: Word, asked: Word, prefix: boolean): boolean {
  return isSpelled(word.term, asked, prefix) || (word.also !== undefined && isSpelled(word.also, asked, prefix));
}

function isSpelled(word: string, { term, also }: Word, prefix: boolean): boolean {
  if (prefix) return word.startsWith(term) || (also !== undefined && word.startsWith(also));
  return word === term || word === also;
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
