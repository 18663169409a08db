import { fold } from './fold.js';
import { isLoneCharacter, type Word, wordsOf } from './words.js';

/* What somebody asks with `q`. Every text is a question: what is no operator is a text to find. Pure. */

/** A word or a quoted phrase. Words that belong together (AB-123, ada@example.com) are one term. */
export interface Term {
  /** The folded text, with its punctuation. */
  readonly text: string;
  readonly words: readonly Word[];
  /** True when the last word may go on. */
  readonly prefix: boolean;
  readonly quoted: boolean;
  readonly excluded: boolean;
}

export interface SearchQuestion {
  readonly terms: readonly Term[];
  /** All that is wanted as one folded line, to compare with whole names and addresses. */
  readonly whole: string;
}

/** Most words and phrases of a question. */
export const MOST_TERMS = 50;

// A quote that is never closed is a character as any other.
const PART = /(-?)"([^"]*)"|(\S+)/gu;

export function questionOf(q: string): SearchQuestion {
  const terms: Term[] = [];
  const whole: string[] = [];
  for (const { 1: minus, 2: phrase, 3: bare } of q.matchAll(PART)) {
    const quoted = phrase !== undefined;
    const excluded = quoted ? minus === '-' : /^-./u.test(bare ?? '');
    const given = quoted ? phrase : (bare ?? '').slice(excluded ? 1 : 0);
    const starred = !quoted && given.endsWith('*');
    const text = starred ? given.slice(0, -1) : given;
    const folded = fold(text);
    if (!excluded && folded.text.trim() !== '') whole.push(folded.text.replace(/\s+/gu, ' ').trim());
    const words = wordsOf(text, folded, true);
    // Without a letter or a digit there is nothing to look for.
    if (words.length > 0) terms.push({ text: folded.text, words, prefix: starred, quoted, excluded });
  }
  const last = terms.findLastIndex(({ quoted, excluded }) => !quoted && !excluded);
  return {
    terms: terms.map((term, i) => (i === last ? { ...term, prefix: true } : term)),
    whole: whole.join(' '),
  };
}

export const wantedOf = ({ terms }: SearchQuestion): readonly Term[] => terms.filter(({ excluded }) => !excluded);
export const excludedOf = ({ terms }: SearchQuestion): readonly Term[] => terms.filter(({ excluded }) => excluded);

/** True when the term's word at this place is found as the beginning of a longer one. */
export const isPrefixAt = ({ words, prefix }: Term, i: number): boolean =>
  (prefix && i === words.length - 1) || (words.length === 1 && isLoneCharacter(words[i]?.term ?? ''));
