import { startApi, type TestApi } from '../support/api.js';
import { faultSeed, seededRandom, type SeededRandom } from '../support/seeded-random.js';

/*
 * Random conversations of two organizations, and random questions: what is found is what a plain reading of the rules finds, no more and no
 * less, for those who may read messages and for those who may not.
 */

const CONVERSATIONS = 60;
const QUESTIONS = 150;

const VOCABULARY = [
  'order',
  'orders',
  'ordering',
  'parcel',
  'Straße',
  'été',
  'Étienne',
  'naïve',
  'AB-12',
  '4711',
  'lost',
  'found',
  'Öl',
  'ada@mail.example',
  'refund',
];
const NAMES = ['Ada Parcelton', 'Étienne Lost', 'Orderic Vital', 'Mara Straßer', 'Bo Found'];

interface Model {
  readonly id: string;
  readonly messages: string[];
  readonly own: string[];
  readonly visitor: readonly string[];
}

let api: TestApi;
let other: { organizationId: string; adminKey: string };
const seed = faultSeed();
const random = seededRandom(seed);
const models = new Map<string, Model[]>();

const sentence = (from: SeededRandom) => Array.from({ length: 1 + from.int(5) }, () => from.pick(VOCABULARY)).join(from.pick([' ', ', ']));

async function write(key: string): Promise<Model[]> {
  const made: Model[] = [];
  for (let i = 0; i < CONVERSATIONS; i++) {
    const name = random.pick(NAMES);
    const email = random.int(2) === 0 ? undefined : `${random.pick(['refund', 'lostparcel', 'someone'])}${i}@post.example`;
    const messages = [sentence(random)];
    const subject = random.int(2) === 0 ? undefined : sentence(random);
    const attribute = random.int(3) === 0 ? sentence(random) : undefined;
    const { id } = (
      await api.expect(201, 'POST', '/conversations', {
        key,
        body: {
          visitor: { name, ...(email === undefined ? {} : { email }) },
          message: messages[0],
          ...(subject === undefined ? {} : { subject }),
          ...(attribute === undefined ? {} : { customAttributes: { said: attribute } }),
        },
      })
    ).body.data as { id: string };
    const tags: string[] = [];
    for (let n = random.int(4); n > 0; n--) {
      const text = sentence(random);
      if (random.int(4) === 0) {
        const tag = random.pick(VOCABULARY);
        await api.expect(200, 'POST', `/conversations/${id}/tags`, { key, body: { tags: [tag] } });
        if (!tags.includes(tag)) tags.push(tag);
        continue;
      }
      const type = random.pick(['reply', 'note']);
      await api.expect(201, 'POST', `/conversations/${id}/reply`, { key, body: { type, message: text } });
      messages.push(text);
    }
    const own = [subject, attribute, ...tags].filter((text) => text !== undefined);
    made.push({ id, messages, own, visitor: email === undefined ? [name] : [name, email] });
  }
  return made;
}

beforeAll(async () => {
  api = await startApi();
  other = await api.otherOrganization();
  models.set(api.adminKey, await write(api.adminKey));
  models.set(other.adminKey, await write(other.adminKey));
}, 120_000);
afterAll(() => api.stop());

/* The plain reading. */

const plain = (text: string) =>
  text
    .toLowerCase()
    .replaceAll('ß', 'ss')
    .normalize('NFD')
    .replaceAll(/\p{Diacritic}/gu, '');
/** The words, each in all its spellings: Öl is also written Oel. */
const wordsOf = (text: string): string[][] => {
  const split = (one: string) => plain(one).split(/[^a-z0-9]+/);
  const words = split(text);
  const german = split(text.replaceAll(/[äöü]/gi, (letter) => `${plain(letter)}e`));
  return words.map((word, i) => [word, german[i] ?? word]).filter(([word]) => word !== '');
};

interface Asked {
  readonly text: string;
  readonly quoted: boolean;
  readonly minus: boolean;
  readonly prefix: boolean;
}

/** Whether the words stand side by side in one of the texts. */
function stands({ text, prefix }: Asked, texts: readonly string[]): boolean {
  const asked = wordsOf(text);
  return texts.some((one) => {
    const words = wordsOf(one);
    return words.some((_, at) =>
      asked.every((word, i) => {
        const there: string[] | undefined = words[at + i];
        return there?.some((one) => word.some((spelled) => (prefix && i === asked.length - 1 ? one.startsWith(spelled) : one === spelled)));
      }),
    );
  });
}

function matches(question: readonly Asked[], { messages, own, visitor }: Model, readsMessages: boolean): boolean {
  const fits = (has: (one: Asked) => boolean) => question.every((one) => has(one) !== one.minus);
  const ownHas = (one: Asked) =>
    stands(one, own) ||
    stands(one, visitor) ||
    (!one.quoted && !one.minus && plain(one.text).length >= 3 && visitor.some((text) => plain(text).includes(plain(one.text))));
  return fits(ownHas) || (readsMessages && messages.some((message) => fits((one) => stands(one, [message]))));
}

function question(): readonly Asked[] {
  const asked = Array.from({ length: 1 + random.int(3) }, (_, i): Asked => {
    const minus = i > 0 && random.int(4) === 0;
    if (random.int(4) === 0) return { text: `${random.pick(VOCABULARY)} ${random.pick(VOCABULARY)}`, quoted: true, minus, prefix: false };
    const word = random.pick([
      ...VOCABULARY,
      'arcel',
      'ost.ex',
      'tienn',
      'strasse',
      'STRASSE',
      'ete',
      'oel',
      'or',
      'mara',
      'bo',
      '12',
      'AB',
    ]);
    return {
      text: random.int(3) === 0 ? word.slice(0, 2 + random.int(word.length)) : word,
      quoted: false,
      minus,
      prefix: random.int(4) === 0,
    };
  });
  const last = asked.findLastIndex(({ quoted, minus }) => !quoted && !minus);
  return asked.filter(({ text }) => wordsOf(text).length > 0).map((one) => (one === asked[last] ? { ...one, prefix: true } : one));
}

const written = (asked: readonly Asked[], lastStar: boolean) =>
  asked
    .map((one, i) => {
      const star = one.prefix && (lastStar || i !== asked.findLastIndex(({ quoted, minus }) => !quoted && !minus)) ? '*' : '';
      return `${one.minus ? '-' : ''}${one.quoted ? `"${one.text}"` : one.text}${star}`;
    })
    .join(' ');

test(`what is found is what the rules say (FAULT_SEED=${seed})`, async () => {
  const headers = { 'x-min-position': await api.backend.store.head() };
  const readers = [
    { organization: api.adminKey, key: api.adminKey, readsMessages: true },
    { organization: other.adminKey, key: other.adminKey, readsMessages: true },
    { organization: api.adminKey, key: await api.keyFor('analyst'), readsMessages: false },
  ];
  let hits = 0;
  for (let i = 0; i < QUESTIONS; i++) {
    const asked = question();
    if (!asked.some(({ minus }) => !minus)) continue;
    const q = written(asked, random.int(2) === 0);
    const { organization, key, readsMessages } = random.pick(readers);
    const expected = (models.get(organization) ?? []).filter((model) => matches(asked, model, readsMessages)).map(({ id }) => id);
    const found = async (path: string) =>
      (await api.expect(200, 'GET', `${path}?limit=100&q=${encodeURIComponent(q)}`, { key, headers })).body;
    const search = await found('/search');
    const ids = (search.data as { conversation: { id: string } }[]).map(({ conversation }) => conversation.id);
    expect([q, ids.toSorted()]).toEqual([q, expected.toSorted()]);
    expect([q, search.meta.total]).toEqual([q, expected.length]);
    const list = await found('/conversations');
    expect([q, (list.data as { id: string }[]).map(({ id }) => id).toSorted()]).toEqual([q, expected.toSorted()]);
    expect([q, list.meta.total]).toEqual([q, expected.length]);
    // Every hit shows where a word stands, in a text that the reader may see.
    for (const { highlights, message } of search.data as { highlights: { field: string; ranges: unknown[] }[]; message?: unknown }[]) {
      expect([q, highlights.length > 0]).toEqual([q, true]);
      if (!readsMessages) expect([message, highlights.some(({ field }) => field.startsWith('message'))]).toEqual([undefined, false]);
    }
    hits += ids.length;
  }
  expect(hits).toBeGreaterThan(QUESTIONS);
}, 120_000);
