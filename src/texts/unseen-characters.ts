/*
 * Which characters are invisible, and the form of texts that people type to find something again. Pure: the domain compares with it.
 */

/** Zero-width, bidirectional and other invisible characters, as the inside of a character class (flag u). */
export const UNSEEN = String.raw`\p{Cf}\p{Cc}\p{Default_Ignorable_Code_Point}\u2800`;

const NOTHING_SEEN = new RegExp(`^[\\s${UNSEEN}]*$`, 'u');

/** True for a text of only white space and invisible characters, and for the empty text. */
export const saysNothing = (text: string): boolean => NOTHING_SEEN.test(text);

/** Characters that show as a gap: white space except U+FEFF, which has no width; the next-line control and the empty Braille pattern. */
const GAP = String.raw`(?!\ufeff)[\s\u0085\u2800]`;
/** Signs of Arabic, Syriac and Kaithi numbers, which Unicode calls format characters although they are visible. */
const SEEN = String.raw`[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u{110bd}\u{110cd}]`;

/** The scripts whose letters change their shape beside a joiner. */
const JOINING_SCRIPTS =
  'Arabic Syriac Mandaic Mongolian Nko Phags_Pa Devanagari Bengali Gurmukhi Gujarati Oriya Tamil Telugu Kannada Malayalam Sinhala Khmer Myanmar Tibetan';
const JOINING = `[${JOINING_SCRIPTS.split(' ')
  .map((script) => String.raw`\p{Script_Extensions=${script}}`)
  .join('')}]`;
/** A visible letter or mark of such a script. */
const LETTER = String.raw`(?![${UNSEEN}])(?=[\p{L}\p{M}])${JOINING}`;
/** The signs of these scripts after which a joiner chooses the shape, even at the end of a word. */
const VIRAMA = String.raw`[\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d3b\u0d3c\u0d4d\u0dca\u1039\u103a\u17d2]`;
const PICTURE = String.raw`\p{Extended_Pictographic}`;
const TAG = String.raw`[\u{e0030}-\u{e0039}\u{e0061}-\u{e007a}]`;

/** Where an invisible character changes the visible text: removing it would make another word or picture. */
const SHAPING = [
  // zero-width joiner and non-joiner within words, as in Persian and Malayalam
  String.raw`(?<=${LETTER})[\u200c\u200d](?=${LETTER})`,
  String.raw`(?<=${VIRAMA})[\u200c\u200d]`,
  // families, professions, rainbow flags
  String.raw`(?<=(?:${PICTURE}\ufe0f?|\p{Emoji_Modifier}))\u200d(?=${PICTURE})`,
  // variation selectors that show a sign as a picture (a heart, a key's cap) or a picture as a sign
  String.raw`(?<=(?!\p{Emoji_Presentation})${PICTURE})\ufe0f`,
  String.raw`(?<=[0-9#*])\ufe0f(?=\u20e3)`,
  String.raw`(?<=${PICTURE})\ufe0e`,
  // the flags of England, Scotland and Wales
  String.raw`(?<=\u{1f3f4}${TAG}{0,6})${TAG}(?=${TAG}{0,6}\u{e007f})`,
  String.raw`(?<=\u{1f3f4}${TAG}{1,7})\u{e007f}`,
  // variants of ideographs in names, and of Mongolian letters
  String.raw`(?<=\p{Ideographic})[\ufe00-\ufe02\u{e0100}-\u{e01ef}]`,
  String.raw`(?<=(?=\p{L})\p{Script=Mongolian})[\u180b-\u180f]`,
].join('|');

const SHOWS_NOTHING = new RegExp(`(?!${GAP}|${SEEN}|${SHAPING})[${UNSEEN}]`, 'gu');
/** Every invisible character, whether or not it shapes others. */
const INVISIBLE = new RegExp(`(?!${GAP}|${SEEN})[${UNSEEN}]`, 'gu');
const GAPS = new RegExp(`(?:${GAP})+`, 'gu');
/** Matches most texts, which are plain and need no work. */
const PLAIN = /^[!-~]+(?: [!-~]+)*$/;

/**
 * The form in which tags, shortcuts and names are stored and compared, so that two that look alike are equal: Unicode NFC, each run of
 * white space as one space and none at the ends, and no invisible characters except those that shape visible ones (joiners in emoji and in
 * Persian, variants of ideographs). Applying it twice changes nothing.
 */
export function typedText(text: string): string {
  if (PLAIN.test(text)) return text;
  // A removed character may have kept marks apart that NFC then puts into another order, after which a joiner shapes nothing any more.
  let form = text;
  for (let pass = 0; pass < MOST_PASSES; pass++) {
    const next = onePass(form, SHOWS_NOTHING);
    if (next === form) return form;
    form = next;
  }
  return onePass(form, INVISIBLE);
}

const onePass = (text: string, invisible: RegExp) =>
  text.normalize('NFC').replace(invisible, '').replace(GAPS, ' ').trim().normalize('NFC');

/** More than any written text needs. A text that is made to need more loses the invisible characters that shape it, too. */
const MOST_PASSES = 8;

/** Replaces every invisible character, including white space other than the space, and lone surrogates. */
export function replaceUnseen(text: string, replacement: (character: string) => string): string {
  return text.replace(REPLACED, replacement);
}
const REPLACED = new RegExp(`(?! |${SEEN}|${SHAPING})(?:[${UNSEEN}]|[\\u2028\\u2029]|\\p{Cs})`, 'gu');
