import { type Folded, fold } from './fold.js';

/*
 * The words of a text. Letters and digits are words; whatever else stands between them parts them, so that the parts of an address, of
 * AB-123 and of #12345 are found. Scripts without spaces have no words that a program could tell: each two neighbouring characters
 * are one, and the last character. Nothing is reduced to a stem. Pure.
 */

/** A word and its place. */
export interface Word {
  readonly term: string;
  /** Another spelling of the same word: mueller for Müller. */
  readonly also: string | undefined;
  /** Counted in words from 1; each character of a script without spaces counts. */
  readonly position: number;
  /** UTF-16 units of the folded text. */
  readonly start: number;
  readonly end: number;
}

/**
 * Longest word that is compared, in UTF-16 units; the rest of a longer one is ignored. PostgreSQL takes words below 2 kB, and a unit is at
 * most three bytes of UTF-8.
 */
export const MAX_WORD = 255;
/**
 * So many marks of one character of a spaceless script are compared. Languages have three or four; Unicode sets no end, and a pair of
 * characters with hundreds would be longer than PostgreSQL takes. A pair is at most 2 × (1 + 16) characters of four bytes.
 */
export const MOST_MARKS = 16;

const SPACELESS = String.raw`[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}ー々〆]`;
const RUN = new RegExp(`((?:${SPACELESS}\\p{M}*)+)|(?:(?!${SPACELESS})[\\p{L}\\p{N}\\p{M}])+`, 'gu');
/** A character with all its marks; its group is what is compared of it. */
const SPACELESS_CHARACTER = new RegExp(`(${SPACELESS}\\p{M}{0,${MOST_MARKS}})\\p{M}*`, 'gu');
const UMLAUT = /[äöü]|[aou]\u0308/i;

/**
 * The words of a text in their order.
 * @param asked true for a question: a run of characters without spaces has no last character of its own, unless it is the only one
 */
export function wordsOf(given: string, folded: Folded = fold(given), asked = false): Word[] {
  if (folded.from === undefined) return plainWords(folded.text);
  const words: Word[] = [];
  let position = 1;
  for (const { 0: run, 1: spaceless, index } of folded.text.matchAll(RUN)) {
    if (spaceless !== undefined) {
      const characters = [...run.matchAll(SPACELESS_CHARACTER)];
      for (const [i, { 0: first, 1: compared = '', index: at }] of characters.entries()) {
        const { 0: second = '', 1: secondCompared = '' } = characters[i + 1] ?? [];
        const start = index + at;
        if (second !== '' || !asked || characters.length === 1)
          words.push({ term: compared + secondCompared, also: undefined, position, start, end: start + first.length + second.length });
        position++;
      }
      continue;
    }
    const end = index + run.length;
    words.push({ term: cut(run), also: umlautSpelling(given, folded, index, end), position, start: index, end });
    position++;
  }
  return words;
}

const PLAIN_RUN = /[a-z0-9]+/g;

/** The words of a folded text of ASCII alone, as most are: several times faster than by the properties of characters. */
function plainWords(text: string): Word[] {
  const words: Word[] = [];
  PLAIN_RUN.lastIndex = 0;
  for (let found = PLAIN_RUN.exec(text); found !== null; found = PLAIN_RUN.exec(text)) {
    const { 0: run, index } = found;
    words.push({ term: cut(run), also: undefined, position: words.length + 1, start: index, end: index + run.length });
  }
  return words;
}

/** True for the term of one character of a script without spaces. It is found as the beginning of two. */
export const isLoneCharacter = (term: string): boolean => LONE.test(term);
const LONE = new RegExp(`^${SPACELESS}\\p{M}{0,${MOST_MARKS}}$`, 'u');

function cut(word: string): string {
  if (word.length <= MAX_WORD) return word;
  const short = word.slice(0, MAX_WORD);
  // Never half of a pair.
  return short.isWellFormed() ? short : short.slice(0, -1);
}

/** In German ä, ö and ü are also written ae, oe and ue. */
function umlautSpelling(given: string, { from, to }: Folded, start: number, end: number): string | undefined {
  const first = from?.[start];
  const last = to?.[end - 1];
  if (first === undefined || last === undefined) return undefined;
  const word = given.slice(first, last);
  if (!UMLAUT.test(word)) return undefined;
  const spelled = word.normalize('NFC').replace(/[äöüÄÖÜ]/g, (letter) => `${letter.normalize('NFD').slice(0, 1)}e`);
  return cut(fold(spelled).text);
}
