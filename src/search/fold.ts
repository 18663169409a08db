/*
 * The form in which texts are compared in a search: without case, accents and the difference between wide and narrow forms. The index, the
 * question and the highlights fold with this one function, so that none finds what another does not. Pure.
 */

/** A folded text, and where each of its UTF-16 units came from. */
export interface Folded {
  readonly text: string;
  /** Where the unit's character begins and ends in the given text, in UTF-16 units; undefined where both texts have the same units. */
  readonly from: readonly number[] | undefined;
  readonly to: readonly number[] | undefined;
}

// oxlint-disable-next-line no-control-regex -- ASCII is meant
const IS_ASCII = /^[\x00-\x7f]*$/;
/**
 * A character with its marks. Jamo that are written one by one make a syllable together. More marks than any language has are folded apart:
 * Unicode sorts the marks of a character, which takes seconds for tens of thousands.
 */
const CHARACTER = /[\u1100-\u11ff]+\p{M}{0,32}|[^\p{M}][\p{M}\uff9e\uff9f]{0,32}|\p{M}{1,32}/gu;
/**
 * Marks that people leave out when they type: accents of Latin, Greek and Cyrillic letters, and the points of Hebrew and Arabic. Others,
 * such as the vowels of Hindi and the voicing of kana, make another word.
 */
const ACCENTS = new RegExp(
  String.raw`[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]`,
  'g',
);
/** Characters that are written but not seen, such as soft hyphens. */
const UNSEEN = new RegExp(String.raw`[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]`, 'gu');

/** Letters that people type as others, and that Unicode does not take apart. */
const LETTERS: Readonly<Record<string, string>> = {
  ß: 'ss',
  æ: 'ae',
  œ: 'oe',
  ø: 'o',
  đ: 'd',
  ð: 'd',
  þ: 'th',
  ł: 'l',
  ħ: 'h',
  ı: 'i',
  ς: 'σ',
};

function foldCharacter(character: string): string {
  const plain = character.normalize('NFKD').replace(ACCENTS, '').replace(UNSEEN, '').toLowerCase();
  let folded = '';
  for (const letter of plain) folded += LETTERS[letter] ?? letter;
  // In lower case a letter may have an accent again: İ.
  return folded.replace(ACCENTS, '').normalize('NFC');
}

export function fold(given: string): Folded {
  if (IS_ASCII.test(given)) return { text: given.toLowerCase(), from: undefined, to: undefined };
  let text = '';
  const from: number[] = [];
  const to: number[] = [];
  for (const { 0: character, index } of given.matchAll(CHARACTER)) {
    const folded = foldCharacter(character);
    text += folded;
    for (let i = 0; i < folded.length; i++) {
      from.push(index);
      to.push(index + character.length);
    }
  }
  return { text, from, to };
}

/** A folded text on one line, as names and addresses are compared. */
export const foldedLine = (given: string): string => fold(given).text.replace(/\s+/gu, ' ').trim();
