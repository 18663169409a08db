import { highlightsOf } from '../../src/search/highlight.js';
import { questionOf, wantedOf } from '../../src/search/question.js';

/* What is marked in the longest texts, and what that costs. */

const marked = (q: string, ...texts: readonly string[]) =>
  highlightsOf(
    wantedOf(questionOf(q)),
    texts.map((text) => ({ field: 'x', text })),
    new Set(),
  ).map(({ text, ranges }) => ranges.map(([from, to]) => Array.from(text).slice(from, to).join('')));

function timeOf(run: () => unknown): number {
  const began = performance.now();
  run();
  return performance.now() - began;
}

test.each([
  ['one phrase again and again', `${'"a a a a a a a a " '.repeat(49)}`, 'a '.repeat(25_000)],
  ['many phrases that nearly match', Array.from({ length: 49 }, (_, i) => `"a a a a a b${i}"`).join(' '), 'a '.repeat(25_000)],
  ['one long phrase', `"${'a '.repeat(490)}b"`, 'a '.repeat(25_000)],
  ['many beginnings', Array.from({ length: 50 }, (_, i) => `aa${i}*`).join(' '), 'aab '.repeat(12_500)],
  ['pairs of characters', `"${'漢'.repeat(900)}字"`, '漢'.repeat(50_000)],
])('%s: a hit of four long texts takes no longer than a glance', (_name, q, text) => {
  expect(timeOf(() => marked(q, text, text, text, text))).toBeLessThan(500);
});

test('what is beyond the budget is not marked, and what is before it is', () => {
  const phrases = Array.from({ length: 40 }, (_, i) => `"a a a a a b${i}"`).join(' ');
  expect(marked(`${phrases} needle`, `needle ${'a '.repeat(20_000)}`)).toEqual([['needle']]);
  expect(marked(`${phrases} needle`, `${'a '.repeat(20_000)} needle`)).toEqual([]);
  // An ordinary question is far from it.
  expect(marked('"a b" "a c" needle', `${'a '.repeat(24_000)} needle`)).toEqual([['needle']]);
});

test('terms are marked by every spelling and every word', () => {
  const texts = 'Müller, mueller, muller; müllers kept AB-12 and AB-123';
  expect(marked('"müller"', texts)).toEqual([['Müller', 'mueller', 'muller']]);
  expect(marked('"mueller"', texts)).toEqual([['Müller', 'mueller']]);
  expect(marked('mueller*', texts)).toEqual([['Müller', 'mueller', 'müllers']]);
  expect(marked('AB-12', texts)).toEqual([['AB-12', 'AB-123']]);
  expect(marked('"AB-12" "ab 12" "kept ab"', texts)).toEqual([['kept AB-12']]);
});
