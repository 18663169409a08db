import pg from 'pg';
import { questionOf, wantedOf } from '../../src/search/question.js';
import { queryOfRank, queryOfTerms, vectorOf } from '../../src/search/search.terms.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

/* What a rank costs, and what its bounds cost in phrases. */

const MARK = 'abcd';
const LETTERS = Array.from('abcdefghijklmnopqrstuvwxyz');

let database: TestDatabase;
let client: pg.Client;
beforeAll(async () => {
  database = await createDatabase();
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query('create temp table texts (terms tsvector not null)');
});
afterAll(async () => {
  await client.end();
  await database.drop();
});

const vector = (text: string) => vectorOf(MARK, [{ field: 'x', text }]);
const rankOf = (q: string) => queryOfRank(MARK, wantedOf(questionOf(q)));
const isFound = async (text: string, q: string) => {
  const { rows } = await client.query<{ found: boolean }>('select $1::tsvector @@ $2::tsquery as found', [
    vector(text),
    queryOfTerms(MARK, wantedOf(questionOf(q)), []),
  ]);
  return rows[0]?.found;
};

test.each([
  ['words', LETTERS.join(' ')],
  ['umlauts', 'ä ö ü a* b*'],
  ['one phrase', `"${LETTERS.join(' ')}"`],
  ['beginnings', LETTERS.map((letter) => `${letter}*`).join(' ')],
])('the longest messages are ranked by %s in no time', async (_name, q) => {
  const long = `${LETTERS.join(' ')} ä ö ü `.repeat(900).slice(0, 50_000);
  await client.query('truncate texts');
  await client.query('insert into texts select $1::tsvector from generate_series(1, 25)', [vector(long)]);
  const began = performance.now();
  const { rows } = await client.query<{ rank: number }>('select ts_rank(terms, $1::tsquery) as rank from texts', [rankOf(q)]);
  const took = performance.now() - began;
  expect(rows.every(({ rank }) => rank > 0)).toBe(true);
  // By all words, at 255 places each, it took eight seconds.
  expect(took).toBeLessThan(1_000);
});

test('nearer words rank higher, and more of them', async () => {
  const ranked = async (text: string, q: string) =>
    (await client.query<{ rank: number }>('select ts_rank($1::tsvector, $2::tsquery) as rank', [vector(text), rankOf(q)])).rows[0]?.rank ??
    0;
  const near = await ranked('lost parcel of somebody', 'lost parcel');
  expect(near).toBeGreaterThan(await ranked('lost what somebody sent as a parcel', 'lost parcel'));
  expect(await ranked('lost parcel, lost parcel', 'lost parcel')).toBeGreaterThan(near);
  // Long words tell more than short ones.
  expect(rankOf('is my lost parcel in a warehouse of "big post"')).toBe("'abcdwarehouse' & 'abcdparcel' & 'abcdlost' & 'abcdpost'");
});

test('a phrase is found at the first 128 places of each of its words', async () => {
  expect(await isFound(`${'the x '.repeat(127)}the needleqq`, '"the needleqq"')).toBe(true);
  expect(await isFound(`${'the x '.repeat(128)}the needleqq`, '"the needleqq"')).toBe(false);
  for (const q of ['the needleqq', '"needleqq"']) expect(await isFound(`${'the x '.repeat(300)}the needleqq`, q)).toBe(true);
});
