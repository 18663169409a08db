import fc from 'fast-check';
import { replaceUnseen, saysNothing, typedText } from '../../src/texts/unseen-characters.js';

describe('a typed text', () => {
  test.each([
    ['no white space at its ends', ' vip\u00a0', 'vip'],
    ['one space for a run of white space', 'a\u00a0\u2003\t b\r\nc\u0085d\u2800e', 'a b c d e'],
    ['NFC', 'Zoe\u0308', 'Zo\u00eb'],
    ['NFC, also across what is removed', 'e\u200b\u0301', '\u00e9'],
    ['no character without a width', '\ufeffv\u200bi\u2060p\u00ad', 'vip'],
    ['no bidirectional mark', '\u202evip\u202c\u200f', 'vip'],
    ['no control character', 'v\u0007i\u001bp\u009b', 'vip'],
    ['no joiner that joins nothing', 'v\u200di\u200cp', 'vip'],
    ['no variation of what has none', 'vip\ufe0f', 'vip'],
    ['no filler', '\u3164vip\u115f', 'vip'],
    ['no tag outside of a flag', 'vip\u{e0067}', 'vip'],
    ['no emoji style for what is an emoji by itself', '👍\ufe0f', '👍'],
  ])('has %s', (_, given, stored) => {
    expect(typedText(given)).toBe(stored);
  });

  test.each([
    'plain text, with 1 + 1 signs',
    'Zoë Äpfel',
    '漢字 かな',
    '👩\u200d👩\u200d👧',
    '👩🏽\u200d💻',
    '🏳\ufe0f\u200d🌈',
    '👩\u200d❤\ufe0f\u200d👨',
    '1\ufe0f\u20e3',
    '❤\ufe0f',
    '❤\ufe0e',
    '\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}',
    'می\u200cخواهم',
    'രാജന\u0d4d\u200d',
    'क\u094d\u200dष',
    '葛\u{e0100}城',
    '\u06dd',
  ])('keeps %j', (text) => {
    expect(typedText(text)).toBe(text);
  });

  test('is its own typed form where what is removed kept marks apart', () => {
    const text = '\u0301\u{e0067}\u0d4d\u200d';
    expect(typedText(typedText(text))).toBe(typedText(text));
  });

  test('is its own typed form, whatever it was made of', () => {
    const plain = ['a', 'e', '\u0301', ' ', '\u00a0', '\u200b', '\u200c', '\u200d', '\u202e', '\t', '\ufeff', '\u2800'];
    const shaped = ['\ufe0f', '\ufe0e', '❤', '👍', '👩', '🏽', '1', '\u20e3', 'ی', 'خ', 'ക', '\u0d4d', '葛', '\u{e0100}'];
    const flags = ['\u{1f3f4}', '\u{e0067}', '\u{e0062}', '\u{e007f}', '\u1820', '\u180b'];
    const part = fc.constantFrom(...plain, ...shaped, ...flags);
    fc.assert(
      fc.property(
        fc.oneof(
          fc.array(part, { maxLength: 12 }).map((parts) => parts.join('')),
          fc.string({ unit: 'binary' }),
        ),
        (text) => {
          const once = typedText(text);
          expect(typedText(once)).toBe(once);
          expect(once).toBe(once.trim().normalize('NFC'));
          if (once !== '' && saysNothing(once)) throw new Error('it shows nothing and is not empty');
        },
      ),
      { numRuns: 2_000 },
    );
  });

  test('of half a megabyte takes no longer than it must', () => {
    const began = performance.now();
    for (const text of [`\u{1f3f4}${'\u{e0067}'.repeat(250_000)}`, `é${'\u200d'.repeat(500_000)}`, `é${' '.repeat(500_000)}é`])
      typedText(text);
    expect(performance.now() - began).toBeLessThan(5_000);
  });
});

test('what cannot be seen is replaced, and what shapes what is seen is left', () => {
  const shown = (text: string) => replaceUnseen(text, (character) => `<${character.codePointAt(0)!.toString(16)}>`);
  expect(shown('a\u001b[31mb\n\u009b\u202ec\u00a0\u2028\ud800 👩\u200d👧 é')).toBe(
    'a<1b>[31mb<a><9b><202e>c\u00a0<2028><d800> 👩\u200d👧 é',
  );
});
