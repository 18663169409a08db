import fc from 'fast-check';
import pg from 'pg';
import { fold } from '../../src/search/fold.js';
import { excludedOf, questionOf, wantedOf } from '../../src/search/question.js';
import { queryOfTerms, vectorOf } from '../../src/search/search.terms.js';
import { isLoneCharacter, wordsOf } from '../../src/search/words.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

/* PostgreSQL takes the words of any text and of any question: one that it refused would stop the conversation for all readers. */

const MARK = 'abcd';

let database: TestDatabase;
let client: pg.Client;
beforeAll(async () => {
  database = await createDatabase();
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
});
afterAll(async () => {
  await client.end();
  await database.drop();
});

const isFound = async (text: string, q: string): Promise<boolean> => {
  const question = questionOf(q);
  const query = queryOfTerms(MARK, wantedOf(question), excludedOf(question));
  const { rows } = await client.query<{ found: boolean }>('select $1::tsvector @@ $2::tsquery as found', [
    vectorOf(MARK, [{ field: 'x', text }]),
    query,
  ]);
  return rows[0]?.found === true;
};

const often = (of: readonly string[], most: number) =>
  fc.tuple(fc.constantFrom(...of), fc.integer({ min: 1, max: most })).map(([one, times]) => one.repeat(times));
const text = fc
  .array(
    fc.oneof(
      { weight: 4, arbitrary: fc.string({ unit: 'binary', maxLength: 20 }) },
      { weight: 2, arbitrary: fc.string({ unit: 'grapheme', maxLength: 20 }) },
      // Marks of three and four bytes, one that goes before others, and letters that become many.
      { weight: 4, arbitrary: often(['\u0e34', '\u{1e8d0}', '\u0316', '\u0301', '\u3099', '\u302e', '\u0308'], 3_000) },
      {
        weight: 4,
        arbitrary: often(['ก', '漢', '\u{20000}', 'か', '한', '\u1112', 'ü', '\ufdfa', '㌖', '\u{1f600}', "'", '\\', 'x'], 600),
      },
      fc.constantFrom(' ', '"', '-', '*', ' -"', '* '),
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.join(''))
  .filter((one) => one.isWellFormed());

test('PostgreSQL takes the words of any text', async () => {
  await fc.assert(
    fc.asyncProperty(text, async (one) => {
      await client.query('select $1::tsvector', [vectorOf(MARK, [{ field: 'x', text: one }])]);
    }),
    { numRuns: 300 },
  );
}, 60_000);

test('PostgreSQL takes any question', async () => {
  await fc.assert(
    fc.asyncProperty(text, async (one) => {
      const q = Array.from(one).slice(0, 1_000).join('');
      const question = questionOf(q);
      if (wantedOf(question).length > 0)
        await client.query('select $1::tsquery', [queryOfTerms(MARK, wantedOf(question), excludedOf(question))]);
      const spellings = question.terms.flatMap(({ words }) => words.flatMap(({ term, also = '' }) => [term, also]));
      expect(Math.max(0, ...spellings.map((spelling) => Buffer.byteLength(MARK + spelling)))).toBeLessThan(2_000);
    }),
    { numRuns: 300 },
  );
}, 60_000);

test.each([
  ['three bytes', 'ก', '\u0e34'],
  ['four bytes', 'ก', '\u{1e8d0}'],
])('a character with thousands of marks of %s is a word, and is found', async (_name, letter, mark) => {
  const many = letter + mark.repeat(2_000);
  expect(await isFound(`x ${many}ข y`, many)).toBe(true);
  expect(await isFound(`x ${many}ข y`, `${many}ข`)).toBe(true);
  expect(await isFound(`x ${many}ข y`, letter)).toBe(true);
  expect(await isFound(`x ${many}ข y`, `"${many}ค"`)).toBe(false);
  const [only] = wordsOf(many, fold(many), true);
  expect(isLoneCharacter(only?.term ?? '')).toBe(true);
  // What is marked ends where the character ends.
  const [first] = wordsOf(`${many}ข`);
  expect(first?.end).toBe(many.length + 1);
});

test('the longest texts of the longest characters are taken', async () => {
  for (const one of [
    Array.from({ length: 50_000 }, (_, i) => String.fromCodePoint(0x20000 + ((i * 7_919) % 42_000))).join(''),
    Array.from({ length: 50_000 }, (_, i) => String.fromCodePoint(0x4e00 + ((i * 7_919) % 20_000))).join(''),
    '\u{1e922}'.repeat(50_000),
    'ü'.repeat(50_000),
    '\ufdfa'.repeat(50_000),
    '㌖'.repeat(50_000),
  ])
    await client.query('select $1::tsvector', [vectorOf(MARK, [{ field: 'x', text: one }])]);
  for (const q of ['㌖'.repeat(1_000), '\ufdfa'.repeat(1_000), 'a-'.repeat(500), `"${'ü '.repeat(499)}"`]) await isFound('a text', q);
}, 60_000);
