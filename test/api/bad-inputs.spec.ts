import { request as httpRequest } from 'node:http';
import { gzipSync } from 'node:zlib';
import { ERRORS, type ErrorCode } from '../../src/errors.js';
import { problemSchema } from '../../src/http/problem.js';
import { startApi, type TestApi } from '../support/api.js';
import { eventsAfter } from '../support/events-after.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

/*
 * Bad inputs, each with the answer it must get. None of them may write, none may be a fault of ours, and no answer may tell of the inside
 * or send a secret back.
 */

let api: TestApi;
/** An open, a resolved and a closed conversation. */
let open: string;
let resolved: string;
let closed: string;
/** Another organization's conversation. */
let foreign: string;

beforeAll(async () => {
  api = await startApi();
  const opened = async (key = api.adminKey) =>
    (await api.expect(201, 'POST', '/conversations', { key, body: { visitor: { name: 'Ada' }, message: 'Hi' } })).body.data.id as string;
  [open, resolved, closed] = [await opened(), await opened(), await opened()];
  await api.expect(200, 'PUT', `/conversations/${resolved}`, { body: { status: 'resolved' } });
  await api.expect(200, 'PUT', `/conversations/${closed}`, { body: { status: 'closed' } });
  foreign = await opened((await api.otherOrganization()).adminKey);
});
afterAll(async () => {
  try {
    await expectReadModelsEqualFold(api);
  } finally {
    await api.stop();
  }
});

const JSON_TYPE = { 'content-type': 'application/json' };

interface Sent {
  method: string;
  path: string;
  headers?: Record<string, string | string[]>;
  body?: string | Buffer;
  key?: string | null;
  /** Without a length, in one chunk. */
  chunked?: boolean;
}

/** Sends bytes as they are, and reads the answer even when it comes before all was sent. */
function send({ method, path, headers = {}, body, key, chunked = false }: Sent): Promise<{ status: number; type: string; text: string }> {
  return new Promise((resolve, reject) => {
    const { port } = new URL(api.url);
    const address = `/api/support${path.replace('OPEN', open).replace('RESOLVED', resolved).replace('CLOSED', closed).replace('FOREIGN', foreign)}`;
    const length = body === undefined || chunked ? {} : { 'content-length': String(Buffer.byteLength(body)) };
    const credentials = key === null ? {} : { 'x-api-key': key ?? api.adminKey };
    let answered = false;
    const request = httpRequest(
      { host: '127.0.0.1', port, method, path: address, headers: { ...credentials, ...length, ...headers } },
      (response) => {
        answered = true;
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            type: response.headers['content-type'] ?? '',
            text: Buffer.concat(chunks).toString(),
          }),
        );
        response.on('error', reject);
      },
    );
    // A server that has answered need not read the rest.
    request.on('error', (error) => (answered ? undefined : reject(error)));
    request.end(body);
  });
}

const SECRET = 'hunter2-hunter2';

async function refused(sent: Sent, code: ErrorCode): Promise<void> {
  const before = await api.backend.store.head();
  const answer = await send(sent);
  expect([answer.status, answer.text]).toEqual([ERRORS[code].status, expect.stringContaining(`"code":"${code}"`)]);
  expect(answer.type).toBe('application/problem+json; charset=utf-8');
  expect(problemSchema.safeParse(JSON.parse(answer.text)).error).toBeUndefined();
  expect(answer.text).not.toMatch(/node_modules|\.js:|at \w+ \(|select |insert |SQLSTATE|postgres|kysely|FST_ERR|SyntaxError|position \d/i);
  expect(answer.text).not.toContain(SECRET);
  expect(answer.text).not.toContain(api.adminKey);
  expect(await eventsAfter(api, before)).toEqual([]);
}

const reply = (body: unknown): Sent => ({
  method: 'POST',
  path: '/conversations/OPEN/reply',
  headers: JSON_TYPE,
  body: JSON.stringify(body),
});
const bytes = (body: string | Buffer, headers: Record<string, string> = JSON_TYPE): Sent => ({
  method: 'POST',
  path: '/conversations/OPEN/reply',
  headers,
  body,
});
const opening = (body: object): Sent => ({
  method: 'POST',
  path: '/conversations',
  headers: JSON_TYPE,
  body: JSON.stringify({ visitor: { name: 'Ada' }, message: 'Hi', ...body }),
});
const change = (body: unknown, id = 'OPEN'): Sent => ({
  method: 'PUT',
  path: `/conversations/${id}`,
  headers: JSON_TYPE,
  body: JSON.stringify(body),
});
const post = (what: string, body: unknown, id = 'OPEN'): Sent => ({
  method: 'POST',
  path: `/conversations/${id}/${what}`,
  headers: JSON_TYPE,
  body: JSON.stringify(body),
});
const attached = (attachment: unknown) =>
  reply({
    message: {
      type: 'attachment',
      content: 'x',
      attachments: [{ name: 'a.txt', url: 'https://a.example/a', type: 'text/plain', size: 1, ...(attachment as object) }],
    },
  });
const card = (content: unknown) => reply({ message: { type: 'card', content } });

describe('the body', () => {
  const good = JSON.stringify({ message: SECRET });
  test.each<[string, Sent, ErrorCode]>([
    ['truncated JSON', bytes(good.slice(0, -3)), 'malformed_json'],
    ['nothing, announced as JSON', bytes(''), 'malformed_json'],
    ['nothing at all', { method: 'POST', path: '/conversations/OPEN/reply' }, 'validation_failed'],
    ['[]', bytes('[]'), 'malformed_json'],
    ['null', bytes('null'), 'malformed_json'],
    ['a string', bytes('"str"'), 'malformed_json'],
    ['a number', bytes('5'), 'malformed_json'],
    ['an array of objects', bytes(`[${good}]`), 'malformed_json'],
    ['{}', bytes('{}'), 'validation_failed'],
    ['two documents', bytes(`${good}${good}`), 'malformed_json'],
    ['a comment', bytes(`${good}//`), 'malformed_json'],
    ['NaN', bytes('{"message":NaN}'), 'malformed_json'],
    ['single quotes', bytes(`{'message':'x'}`), 'malformed_json'],
    ['a byte order mark', bytes(`\ufeff${good}`), 'malformed_json'],
    ['a raw control character in a text', bytes('{"message":"a\u0001b"}'), 'malformed_json'],
    ['no content type', bytes(good, {}), 'unsupported_media_type'],
    ['text/plain', bytes(good, { 'content-type': 'text/plain' }), 'unsupported_media_type'],
    ['application/xml', bytes('<a/>', { 'content-type': 'application/xml' }), 'unsupported_media_type'],
    ['a form', bytes('message=x', { 'content-type': 'application/x-www-form-urlencoded' }), 'unsupported_media_type'],
    ['multipart', bytes('--x--', { 'content-type': 'multipart/form-data; boundary=x' }), 'unsupported_media_type'],
    ['application/json garbage', bytes(good, { 'content-type': 'application/json garbage' }), 'unsupported_media_type'],
    ['application/jsonx', bytes(good, { 'content-type': 'application/jsonx' }), 'unsupported_media_type'],
    ['charset=utf-16', bytes(good, { 'content-type': 'application/json; charset=utf-16' }), 'unsupported_media_type'],
    ['charset=latin1', bytes(good, { 'content-type': 'application/json; charset=latin1' }), 'unsupported_media_type'],
    ['bytes that are no UTF-8', bytes(Buffer.from('{"message":"\xff\xfe"}', 'latin1')), 'malformed_json'],
    ['bytes that are no UTF-8, in chunks', { ...bytes(Buffer.from('{"message":"\xff\xfe"}', 'latin1')), chunked: true }, 'malformed_json'],
    ['a surrogate as bytes', bytes(Buffer.from('{"message":"\xed\xa0\x80"}', 'latin1')), 'malformed_json'],
    ['a name twice', bytes('{"message":"a","message":"b"}'), 'malformed_json'],
    ['a name twice, once escaped', bytes('{"message":"a","m\\u0065ssage":"b"}'), 'malformed_json'],
    ['a name twice inside', bytes('{"message":{"type":"text","content":"a","content":"b"}}'), 'malformed_json'],
    ['__proto__', bytes('{"message":"x","__proto__":{"role":"admin"}}'), 'malformed_json'],
    ['__proto__, escaped', bytes('{"message":"x","\\u005f_proto__":{"role":"admin"}}'), 'malformed_json'],
    ['__proto__ inside', bytes('{"message":{"type":"text","content":"x","__proto__":{}}}'), 'malformed_json'],
    ['constructor.prototype', bytes('{"message":"x","constructor":{"prototype":{"role":"admin"}}}'), 'malformed_json'],
    ['40 KB of [', bytes(`{"message":${'['.repeat(40_000)}`), 'malformed_json'],
    ['arrays 5,000 deep', bytes(`{"message":${'['.repeat(5_000)}${']'.repeat(5_000)}}`), 'malformed_json'],
    ['objects 5,000 deep', bytes(`{"message":${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}}`), 'malformed_json'],
    ['2 MB', bytes(JSON.stringify({ message: 'x'.repeat(2_000_000) })), 'payload_too_large'],
    ['2 MB in chunks', { ...bytes(JSON.stringify({ message: 'x'.repeat(2_000_000) })), chunked: true }, 'payload_too_large'],
    ['gzip', bytes(gzipSync(good), { ...JSON_TYPE, 'content-encoding': 'gzip' }), 'unsupported_media_type'],
    ['a gzip bomb', bytes(gzipSync(Buffer.alloc(50_000_000)), { ...JSON_TYPE, 'content-encoding': 'gzip' }), 'unsupported_media_type'],
    ['NUL', bytes('{"message":"a\\u0000b"}'), 'malformed_json'],
    ['NUL in a name', bytes('{"message":"a","b\\u0000":1}'), 'malformed_json'],
    ['a lone surrogate', bytes('{"message":"a\\ud800b"}'), 'malformed_json'],
    ['a lone low surrogate', bytes('{"message":"\\udc00"}'), 'malformed_json'],
  ])('%s', (_, sent, code) => refused(sent, code));
});

describe('fields', () => {
  test.each<[string, Sent]>([
    ['of others: tenantId', reply({ message: 'x', tenantId: 'acme' })],
    ['of others: organizationId', opening({ organizationId: 'acme' })],
    ['of others: role', opening({ role: 'admin' })],
    ['of others: createdAt', opening({ createdAt: '2020-01-01T00:00:00Z' })],
    ['of others: id', opening({ id: 'mine' })],
    ['of others: in the visitor', opening({ visitor: { name: 'x', isAdmin: true } })],
    ['of others: in a message', reply({ message: { type: 'text', content: 'x', author: { id: 'eve' } } })],
    ['of others: in an attachment', attached({ path: '/etc/passwd' })],
    ['of others: in a card', card({ title: 'x', html: '<b>' })],
    ['of others: attachments of a text', reply({ message: { type: 'text', content: 'x', attachments: [] } })],
    ['missing: message', reply({})],
    ['missing: visitor', { ...opening({}), body: '{"message":"x"}' }],
    ['missing: assigneeId', post('assign', {})],
    ['missing: until', post('snooze', {})],
    ['missing: tags', post('tags', {})],
    ['missing: rating', post('rating', {})],
    ['null: message', reply({ message: null })],
    ['null: status', reply({ message: 'x', status: null })],
    ['null: type', reply({ message: 'x', type: null })],
    ['null: visitor', opening({ visitor: null })],
    ['null: priority', change({ priority: null })],
    ['null: until', post('snooze', { until: null })],
    ['a number for a text', reply({ message: 5 })],
    ['an array for a text', reply({ message: ['x'] })],
    ['an empty array for a text', reply({ message: [] })],
    ['an array of messages', reply({ message: [{ type: 'text', content: 'x' }] })],
    ['an object for a text', change({ subject: { toString: 'x' } })],
    ['a text for an object', opening({ visitor: 'ada' })],
    ['an array for an object', opening({ visitor: [] })],
    ['a text for a list', post('tags', { tags: 'billing' })],
    ['an object for a list', post('tags', { tags: { 0: 'billing', length: 1 } })],
    ['null in a list', post('tags', { tags: ['a', null] })],
    ['a list in a list', post('tags', { tags: [['a']] })],
    ['no tag', post('tags', { tags: [] })],
    ['51 tags', post('tags', { tags: Array.from({ length: 51 }, (_, i) => `t${i}`) })],
    ['"false" for a number', post('rating', { rating: 'false' })],
    ['"5" for a number', post('rating', { rating: '5' })],
    ['a status nobody has', change({ status: 'done' })],
    ['a status in capitals', change({ status: 'Open' })],
    ['a status that has its own way', change({ status: 'snoozed' })],
    ['a type nobody speaks', reply({ message: 'x', type: 'whisper' })],
    ['a message of no type', reply({ message: { content: 'x' } })],
    ['a message of another type', reply({ message: { type: 'html', content: 'x' } })],
    ['an inherited name as type', reply({ message: { type: 'toString', content: 'x' } })],
    ['an author nobody is', opening({ as: 'admin' })],
    ['a priority nobody has', opening({ priority: 'highest' })],
  ])('%s', (_, sent) => refused(sent, 'validation_failed'));
});

describe('texts', () => {
  const INVISIBLE = {
    'no character': '',
    spaces: '   ',
    'a tab and a new line': '\t\n',
    'zero-width spaces': '\u200b\u200b',
    'bidirectional controls': '\u202e\u2066\u2069',
    'a soft hyphen': '\u00ad',
    'no-break and ideographic spaces': '\u00a0\u3000\u2003',
    'Hangul fillers': '\u3164\u115f\u1160\uffa0',
    'a Braille blank': '\u2800',
    'variation selectors': '\ufe0f\u{e0100}',
    'a combining grapheme joiner': '\u034f',
    tags: '\u{e0041}\u{e007f}',
  };
  const texts = Object.entries(INVISIBLE).flatMap(([name, text]) => [
    [`${name}: message`, reply({ message: text })] as const,
    [`${name}: tag`, post('tags', { tags: ['good', text] })] as const,
    [`${name}: subject`, change({ subject: text })] as const,
    [`${name}: card`, card({ title: text })] as const,
    [`${name}: attribute’s name`, change({ customAttributes: { [text]: 1 } })] as const,
  ]);
  test.each(texts)('%s', (_, sent) => refused(sent, 'validation_failed'));

  test.each<[string, Sent]>([
    ['50,001 characters', reply({ message: 'x'.repeat(50_001) })],
    ['50,001 emoji', reply({ message: '💶'.repeat(50_001) })],
    ['a subject of 501 characters', opening({ subject: 'x'.repeat(501) })],
    ['a tag of 101 characters', post('tags', { tags: ['x'.repeat(101)] })],
    ['a name of 201 characters', opening({ visitor: { name: 'x'.repeat(201) } })],
    ['an attribute’s name of 65 characters', change({ customAttributes: { ['x'.repeat(65)]: 1 } })],
    ['an attribute of 1,001 characters', change({ customAttributes: { a: 'x'.repeat(1_001) } })],
    ['an attribute of 1,001 emoji', change({ customAttributes: { a: '💶'.repeat(1_001) } })],
    ['101 attributes at once', change({ customAttributes: Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`a${i}`, i])) })],
    ['a comment of 5,001 characters', post('rating', { rating: 5, comment: 'x'.repeat(5_001) }, 'RESOLVED')],
    ['an attribute that is an object', change({ customAttributes: { a: {} } })],
    ['an attribute that is a list', change({ customAttributes: { a: [1] } })],
    ['attributes that are a list', change({ customAttributes: [1] })],
    ['an e-mail that is none', opening({ visitor: { email: 'ada' } })],
    ['an e-mail of 321 characters', opening({ visitor: { email: `${'x'.repeat(321 - 12)}@example.com` } })],
    ['an id with a slash', opening({ visitor: { id: 'a/b' } })],
    ['an id of 129 characters', opening({ visitor: { id: 'x'.repeat(129) } })],
    ['an id with a space', post('assign', { assigneeId: 'a b' })],
  ])('%s', (_, sent) => refused(sent, 'validation_failed'));

  test('of the greatest length are taken', async () => {
    await api.expect(200, 'PUT', `/conversations/${open}`, {
      body: {
        subject: '💶'.repeat(500),
        customAttributes: { ['漢'.repeat(64)]: '💶'.repeat(1_000) },
      },
    });
  });
});

describe('numbers', () => {
  const size = (text: string) => ({
    ...bytes(
      `{"message":{"type":"attachment","content":"x","attachments":[{"name":"a","url":"https://a.example","type":"a/b","size":${text}}]}}`,
    ),
  });
  test.each<[string, Sent]>([
    ...['1e400', '1.5', '"1"', '-1', 'null', 'true', '9007199254740993', '[1]'].map((text): [string, Sent] => [`size ${text}`, size(text)]),
    ...['0', '6', '1.5', '-1', '"1"', '1e400', 'true', '[5]'].map((text): [string, Sent] => [
      `rating ${text}`,
      { ...post('rating', {}, 'RESOLVED'), body: `{"rating":${text}}` },
    ]),
    ['an attribute that JSON cannot hold', { ...change({}), body: '{"customAttributes":{"a":1e400}}' }],
    ['an attribute that would be rounded', { ...change({}), body: '{"customAttributes":{"a":9007199254740993}}' }],
  ])('%s', (_, sent) => refused(sent, 'validation_failed'));
});

describe('instants', () => {
  test.each([
    '2099-02-30T00:00:00Z',
    '2099-13-01T00:00:00Z',
    '2099-01-01T24:00:00Z',
    '2099-01-01T00:60:00Z',
    '2099-01-01T00:00:00',
    '2099-01-01',
    '2099-W01',
    '+275761-01-01T00:00:00Z',
    '294277-01-01T00:00:00Z',
    '-000001-01-01T00:00:00Z',
    'tomorrow',
    '1735689600000',
    ' 2099-01-01T00:00:00Z',
    '2099-01-01T00:00:00+99:00',
    '2099-01-01 00:00:00Z',
    'NEXT_REPLY',
    '',
  ])('%s is none', async (until) => {
    await refused(post('snooze', { until }), 'validation_failed');
    if (until !== '') await refused({ method: 'GET', path: `/conversations/OPEN?at=${encodeURIComponent(until)}` }, 'validation_failed');
  });
  test.each<[unknown]>([[4_070_908_800_000], [{ at: 1 }], [['2099-01-01T00:00:00Z']]])('%j is none', (until) =>
    refused(post('snooze', { until }), 'validation_failed'),
  );
  test.each<[string, string, ErrorCode]>([
    ['past', '2024-01-16T09:00:00Z', 'snooze_in_past'],
    ['the year 9999', '9999-12-31T23:59:59Z', 'snooze_too_far'],
    ['the year 0', '0000-01-01T00:00:00Z', 'validation_failed'],
    ['the year 1', '0001-01-01T00:00:00Z', 'snooze_in_past'],
  ])('%s is impossible', (_, until, code) => refused(post('snooze', { until }), code));
});

describe('attachments and cards', () => {
  test.each([
    'javascript:alert(1)',
    'javascript://x%0aalert(1)',
    'JavaScript:alert(1)',
    'data:text/html,x',
    'file:///etc/passwd',
    'ftp://a.example/x',
    'http:evil.com',
    'http:/evil.com',
    'http:\\\\evil.com',
    '//evil.com',
    'evil.com',
    'http://good@evil.com',
    'http://good:secret@evil.com',
    'http://',
    'https://?x',
    ' https://a.example',
    'https://a.example/ b',
    'https://a.example/\nb',
    'https://a b.example',
    'https://[::1',
    'https://a.example:99999',
    `https://a.example/${'x'.repeat(8_192)}`,
    '',
  ])('the address %j', async (url) => {
    await refused(attached({ url }), 'validation_failed');
    await refused(card({ title: 'x', actions: [{ label: 'go', url }] }), 'validation_failed');
  });

  test.each<[string, Sent]>([
    [
      '21 of 20 attachments',
      reply({
        message: {
          type: 'attachment',
          content: 'x',
          attachments: Array.from({ length: 21 }, () => ({ name: 'a', url: 'https://a.example', type: 'a/b', size: 1 })),
        },
      }),
    ],
    ['no attachment', reply({ message: { type: 'attachment', content: 'x', attachments: [] } })],
    ['attachments missing', reply({ message: { type: 'attachment', content: 'x' } })],
    ['null for an attachment', reply({ message: { type: 'attachment', content: 'x', attachments: [null] } })],
    ['a text for an attachment', reply({ message: { type: 'attachment', content: 'x', attachments: ['https://a.example'] } })],
    ['a list for an attachment', reply({ message: { type: 'attachment', content: 'x', attachments: [[]] } })],
    ['an object for attachments', reply({ message: { type: 'attachment', content: 'x', attachments: { name: 'a' } } })],
    ['an attachment without a name', attached({ name: undefined })],
    ['an attachment named by control characters', attached({ name: '\u0001' })],
    ['an attachment whose name ends a header’s line', attached({ name: 'a\r\nb.png' })],
    ['an attachment whose name hides its end', attached({ name: '.htaccess\u200b' })],
    ['an attachment whose name is turned round', attached({ name: 'invoice\u202efdp.exe' })],
    ['an attachment in another folder', attached({ name: '../../etc/passwd' })],
    ['an attachment in another folder of Windows', attached({ name: '..\\..\\boot.ini' })],
    ['an attachment of no media type', attached({ type: 'image' })],
    ['an attachment whose media type ends a header’s line', attached({ type: 'image/png\r\nX-A: b' })],
    ['a card without a title', card({ description: 'x' })],
    ['a card that is a text', card('x')],
    ['a card that is a list', card([])],
    ['a card that is null', card(null)],
    ['a card’s action without a label', card({ title: 'x', actions: [{ url: 'https://a.example' }] })],
    ['a card’s action that does nothing', card({ title: 'x', actions: [{ label: 'x' }] })],
    ['a card’s action that does two things', card({ title: 'x', actions: [{ label: 'x', action: 'y', url: 'https://a.example' }] })],
    ['null for a card’s action', card({ title: 'x', actions: [null] })],
    ['a list for a card’s action', card({ title: 'x', actions: [[]] })],
    ['11 of 10 actions', card({ title: 'x', actions: Array.from({ length: 11 }, () => ({ label: 'x', action: 'y' })) })],
  ])('%s', (_, sent) => refused(sent, 'validation_failed'));
});

describe('what is said of a field that is refused', () => {
  const TEXT = { type: 'text', content: 'x' };
  const attachment = { name: 'a.txt', url: 'https://a.example/a', type: 'text/plain', size: 1 };
  const attaching = (...attachments: unknown[]) => reply({ message: { type: 'attachment', attachments } });
  const put = (path: string, body: unknown): Sent => ({ method: 'PUT', path, headers: JSON_TYPE, body: JSON.stringify(body) });
  const make = (path: string, body: unknown): Sent => ({ ...put(path, body), method: 'POST' });
  const get = (path: string): Sent => ({ method: 'GET', path });
  const hours = (timezone: unknown, schedule: unknown = {}) => make('/inboxes', { name: 'x', workingHours: { timezone, schedule } });
  const NO_ID = 'must be 1 to 128 of A-Z a-z 0-9 . _ : @ -, and not ., .. or none';
  const NO_ZONE = 'must be the IANA name of a time zone, such as Europe/Berlin';
  const NO_INSTANT = 'must be an instant with a zone, such as 2026-01-16T09:00:00Z';

  test.each<[Sent, string[]]>([
    [reply({}), ['message must be there, or cannedResponseId']],
    [reply({ message: null }), ['message must not be null']],
    [reply({ message: 5 }), ['message must be a text, or an object with its type']],
    [reply({ message: [TEXT] }), ['message must be a text, or an object with its type']],
    [reply({ message: ' ' }), ['message must not be empty']],
    [reply({ message: { type: 'text' } }), ['message.content is missing']],
    [reply({ message: { type: 'html' } }), ['message.type must be one of text, attachment, card']],
    [reply({ message: { ...TEXT, html: 'x' } }), ['message.html is not known here']],
    [reply({ message: 'x', cannedResponseId: 'a' }), ['cannedResponseId must be absent beside message']],
    [reply({ message: 'x', status: 'snoozed' }), ['status must be one of open, pending, resolved, closed; to snooze, POST to /snooze']],
    [reply({ message: { type: 'attachment' } }), ['message.attachments is missing']],
    [reply({ message: { type: 'attachment', content: '', attachments: [attachment] } }), ['message.content must not be empty']],
    [attaching(), ['message.attachments must not be empty']],
    [
      attaching(attachment, null, 'x', { ...attachment, size: '1' }),
      ['message.attachments[1] must be an object', 'message.attachments[2] must be an object'],
    ],
    [attaching(attachment, { ...attachment, size: '1' }), ['message.attachments[1].size must be a number, not a text']],
    [attaching({ ...attachment, size: -1 }), ['message.attachments[0].size must be a whole number from 0 to 9007199254740991']],
    [
      attaching({ ...attachment, name: 'a/b' }),
      ['message.attachments[0].name must be a name without / and \\, line breaks and characters that cannot be seen'],
    ],
    [
      attaching({ ...attachment, type: 'image' }),
      ['message.attachments[0].type must be a media type, such as application/pdf or audio/webm;codecs=opus'],
    ],
    [
      attaching({ ...attachment, url: `https://a.example/${'x'.repeat(8_192)}` }),
      ['message.attachments[0].url must have at most 8192 characters'],
    ],
    [
      attaching({ ...attachment, url: 'ftp://a.example' }),
      ['message.attachments[0].url must be an http or https address, without user and password'],
    ],
    [card({ title: 'x', actions: [{ label: 'a' }] }), ['message.content.actions[0].url must be there, or action']],
    [
      card({ title: 'x', actions: [{ label: 'a', action: 'b', url: 'https://a.example' }] }),
      ['message.content.actions[0].action must be absent beside url'],
    ],
    [card('x'), ['message.content must be an object']],
    [
      post('tags', { tags: ['a', ' ', 5, null, 'x'.repeat(101), '..'] }),
      [
        'tags[1] must not be empty',
        'tags[2] must be a text',
        'tags[3] must not be null',
        'tags[4] must have at most 100 characters',
        'tags[5] must not be . or .., which no address can name',
      ],
    ],
    [post('tags', { tags: 'a' }), ['tags must be a list']],
    [post('tags', { tags: Array.from({ length: 51 }, () => 5) }), ['tags must have at most 50 entries']],
    [post('rating', { rating: '5' }), ['rating must be a number, not a text']],
    [post('rating', { rating: 6 }), ['rating must be a whole number from 1 to 5']],
    [post('rating', {}), ['rating is missing']],
    [{ ...post('rating', {}), body: '{"rating":4.0000000000000001}' }, ['rating is a number that would be rounded to 4']],
    [post('assign', {}), ['assigneeId must be there, or teamId']],
    [post('assign', { assigneeId: 'none' }), [`assigneeId ${NO_ID}`]],
    [post('snooze', { until: '2099-01-01' }), [`until ${NO_INSTANT}, or next_reply`]],
    [
      change({ customAttributes: { plan: {}, n: 9_007_199_254_740_992, ok: 1, list: [1], ['x'.repeat(65)]: 1, '': 1 } }),
      [
        'customAttributes.plan must be a text, a number, true, false or null',
        'customAttributes.n must lie between -9007199254740991 and 9007199254740991; send a text to keep more digits',
        'customAttributes.list must be a text, a number, true, false or null',
        `customAttributes.${'x'.repeat(64)}… has a name that must have at most 64 characters`,
        'customAttributes has a name that must not be empty',
      ],
    ],
    [
      { ...change({}), body: '{"customAttributes":{"a":1e-400,"b":0.1,"c":12345678901234567,"d":1e400}}' },
      [
        'customAttributes.a is a number that would be rounded to 0',
        'customAttributes.c is a number that would be rounded to 12345678901234568',
        'customAttributes.d is too large a number to be kept',
      ],
    ],
    [
      opening({ visitor: { email: 'ada', attributes: 5 } }),
      ['visitor.email must be an e-mail address without characters that cannot be seen', 'visitor.attributes must be an object'],
    ],
    [opening({ visitor: 'ada' }), ['visitor must be an object']],
    [opening({ as: 'admin' }), ['as must be one of visitor, agent']],
    [make('/agents', { id: 'none', name: 'x' }), [`id ${NO_ID}`]],
    [make('/companies', { id: '..', name: 'x' }), [`id ${NO_ID}`]],
    [make('/agents', { name: 'x', availability: 5 }), ['availability must be one of online, away']],
    [make('/teams', { name: 'x', agentIds: ['a', 'b', 'a', 'c d'] }), ['agentIds[2] is the same as [0]']],
    [make('/teams', { name: 'x', agentIds: ['a', 'c d', 'none'] }), [`agentIds[1] ${NO_ID}`, `agentIds[2] ${NO_ID}`]],
    [make('/api-keys', { name: 'x', role: 'root' }), ['role must be one of admin, agent, auditor, analyst']],
    [
      make('/inboxes', { name: 'x', autoResponder: { enabled: 'yes', message: 'x' } }),
      ['autoResponder.enabled must be true or false, not a text'],
    ],
    [make('/inboxes', { name: 'x', workingHours: [] }), ['workingHours must be an object']],
    ...['BST', 'PST', 'CET', 'Mars/Olympus', 5].map((zone): [Sent, string[]] => [hours(zone), [`workingHours.timezone ${NO_ZONE}`]]),
    [
      hours('UTC', {
        mon: [],
        monday: [
          ['09:00', '12:00'],
          ['9', '10'],
        ],
        friday: [
          ['09:00', '12:00'],
          ['11:00', '13:00'],
        ],
      }),
      [
        'workingHours.schedule.mon is not one of monday, tuesday, wednesday, thursday, friday, saturday, sunday',
        'workingHours.schedule.monday[1] must be [from, to] in HH:MM, such as ["09:00","12:30"], to later than from',
        'workingHours.schedule.friday must have intervals that do not overlap',
      ],
    ],
    [
      make('/conversations/bulk', { ids: ['a', 'b', 'a'], action: { type: 'explode' } }),
      [
        'ids[2] is the same as [0]',
        'action.type must be one of assign, snooze, addTags, removeTag, setStatus, setPriority, setInbox, setCustomAttributes, reply, note',
      ],
    ],
    [
      make('/conversations/bulk', { filter: { status: ['open', 'done'], tag: 'a', teamId: [''] }, action: { type: 'addTags', tags: [1] } }),
      [
        'filter.status[1] must be one of open, pending, snoozed, resolved, closed',
        'filter.teamId[0] must not be empty',
        'action.tags[0] must be a text',
      ],
    ],
    [get('/conversations?status=open&status=done'), ['status[1] must be one of open, pending, snoozed, resolved, closed']],
    [get('/conversations?createdAfter=2026-01-01T00:00:00+01:00'), [`createdAfter ${NO_INSTANT}; a + in an address must be written %2B`]],
    [get('/conversations/OPEN?at=2026-01-01T00:00:00+01:00'), [`at ${NO_INSTANT}; a + in an address must be written %2B`]],
    [get('/visitors?email=ada+tag@example.com'), ['email must be an e-mail address; a + in an address must be written %2B']],
    [get('/conversations/OPEN/messages?limit=201'), ['limit must be a whole number from 1 to 200']],
    [get('/conversations/OPEN/events?from=-1'), ['from must be a whole number from 0']],
  ])('%j', async (sent, said) => {
    await refused(sent, 'validation_failed');
    const { errors } = JSON.parse((await send(sent)).text) as { errors: { field: string; message: string }[] };
    expect(errors.map(({ field, message }) => `${field} ${message}`)).toEqual(said);
  });
});

describe('addresses', () => {
  test.each(['1', '%00', '..%2f', '%E0%A4%A', '00000000-0000-0000-0000-000000000000', 'FOREIGN'])('the id %s names nothing', async (id) => {
    await refused({ method: 'GET', path: `/conversations/${id}` }, 'not_found');
    await refused(change({ status: 'closed' }, id), 'not_found');
    await refused(post('reply', { message: 'x' }, id), 'not_found');
  });

  test('an id is not found in other letters', async () => {
    await refused({ method: 'GET', path: `/conversations/${open.toUpperCase()}` }, 'not_found');
  });

  test.each<[string, ErrorCode]>([
    ['/conversations/OPEN?revision=-1', 'validation_failed'],
    ['/conversations/OPEN?revision=1.5', 'validation_failed'],
    ['/conversations/OPEN?revision=01', 'validation_failed'],
    ['/conversations/OPEN?revision=1e1', 'validation_failed'],
    ['/conversations/OPEN?revision=9007199254740993', 'validation_failed'],
    ['/conversations/OPEN?revision=', 'validation_failed'],
    ['/conversations/OPEN?revision=1&revision=2', 'validation_failed'],
    ['/conversations/OPEN?revision=999999999', 'not_found'],
    ['/conversations/OPEN?unknown=1', 'validation_failed'],
    ['/conversations/OPEN?__proto__=1', 'validation_failed'],
    ['/conversations/OPEN/messages?limit=0', 'validation_failed'],
    ['/conversations/OPEN/messages?limit=201', 'validation_failed'],
    ['/conversations/OPEN/messages?limit=1e2', 'validation_failed'],
    ['/conversations/OPEN/messages?before=%00', 'validation_failed'],
    ['/conversations/OPEN/messages?before=none', 'not_found'],
    ['/conversations/OPEN/events?limit=1001', 'validation_failed'],
    ['/conversations/OPEN/events?from=-1', 'validation_failed'],
    ['/conversations/OPEN/events?from=x', 'validation_failed'],
    ['/conversations?limit=101', 'validation_failed'],
    ['/conversations?limit=1&limit=2', 'validation_failed'],
    ['/conversations?cursor=forged', 'validation_failed'],
    ['/conversations?status[$ne]=open', 'validation_failed'],
    ['/conversations?status=open%27%20OR%201=1', 'validation_failed'],
    [`/conversations?${Array.from({ length: 201 }, (_, i) => `p${i}=1`).join('&')}`, 'headers_too_large'],
  ])('%s', (path, code) => refused({ method: 'GET', path }, code));
});

describe('states and revisions', () => {
  test.each<[string, Sent, ErrorCode]>([
    ['replying to a closed one', post('reply', { message: 'x' }, 'CLOSED'), 'conversation_closed'],
    ['the visitor in a closed one', post('messages', { message: 'x' }, 'CLOSED'), 'conversation_closed'],
    ['opening a closed one', change({ status: 'open' }, 'CLOSED'), 'conversation_closed'],
    ['tagging a closed one', post('tags', { tags: ['x'] }, 'CLOSED'), 'conversation_closed'],
    ['snoozing a resolved one', post('snooze', { until: 'next_reply' }, 'RESOLVED'), 'transition_not_allowed'],
    ['resolved to pending', change({ status: 'pending' }, 'RESOLVED'), 'transition_not_allowed'],
    ['rating an open one', post('rating', { rating: 5 }), 'no_ended_episode'],
    ['an unknown assignee', post('assign', { assigneeId: 'nobody' }), 'unknown_assignee'],
    ['an unknown inbox', change({ inboxId: 'nowhere' }), 'unknown_inbox'],
    ['a stale revision', { ...change({ subject: 'x' }), headers: { ...JSON_TYPE, 'if-match': '"0"' } }, 'revision_mismatch'],
    // As for any other entity-tag that is not the current one.
    ...[
      'x',
      '',
      '"1.5"',
      '"-1"',
      '"1e400"',
      '"9007199254740993"',
      '"01"',
      'W/"1.5"',
      '"0", "0"',
      '"0", "x", W/"1"',
      'W/*',
      '*, "1"',
      '"1" "2"',
      '\u00ff',
    ].map((revision): [string, Sent, ErrorCode] => [
      `the revision ${JSON.stringify(revision)}, which is none`,
      { ...change({ subject: 'x' }), headers: { ...JSON_TYPE, 'if-match': revision } },
      'revision_mismatch',
    ]),
    [
      'an Idempotency-Key of 256 characters',
      { ...reply({ message: 'x' }), headers: { ...JSON_TYPE, 'idempotency-key': 'x'.repeat(256) } },
      'malformed_request',
    ],
    [
      'an Idempotency-Key that is not ASCII',
      { ...reply({ message: 'x' }), headers: { ...JSON_TYPE, 'idempotency-key': 'cl\u00e9' } },
      'malformed_request',
    ],
    ['an empty Idempotency-Key', { ...reply({ message: 'x' }), headers: { ...JSON_TYPE, 'idempotency-key': '' } }, 'malformed_request'],
    ['two Idempotency-Keys', { ...reply({ message: 'x' }), headers: { ...JSON_TYPE, 'idempotency-key': ['a', 'b'] } }, 'malformed_request'],
  ])('%s', (_, sent, code) => refused(sent, code));
});

describe('keys', () => {
  test.each<[string, Partial<Sent>]>([
    ['none', { key: null }],
    ['an empty one', { key: '' }],
    ['another', { key: `tl_${SECRET}` }],
    ['two of a kind', { key: null, headers: { authorization: ['Bearer KEY', 'Bearer KEY'] } }],
    ['two at once', { headers: { authorization: 'Bearer KEY' } }],
    ['the same twice', { key: null, headers: { 'x-api-key': ['KEY', 'KEY'] } }],
    ['another scheme', { key: null, headers: { authorization: 'Basic KEY' } }],
    ['a scheme without a key', { key: null, headers: { authorization: 'Bearer' } }],
    ['one in the address', { key: null, path: '/conversations?x-api-key=KEY' }],
    ['one in a cookie', { key: null, headers: { cookie: 'x-api-key=KEY' } }],
  ])('%s', (_, sent) => {
    const real = (text: string) => text.replace('KEY', api.adminKey);
    const headers = Object.fromEntries(
      Object.entries(sent.headers ?? {}).map(([name, value]) => [name, Array.isArray(value) ? value.map(real) : real(value)]),
    );
    return refused(
      { method: 'GET', path: '/conversations', ...sent, ...(sent.path === undefined ? {} : { path: real(sent.path) }), headers },
      'unauthenticated',
    );
  });
});

test('what a filter compares with is a text, whatever it looks like', async () => {
  for (const value of ['= 1 OR 1=1', "' or ''='", '1); drop table conversations; --', '{"$ne":1}', '%'])
    for (const name of ['customAttributes[plan]', 'tag', 'visitorId']) {
      const found = await api.expect(200, 'GET', `/conversations?${encodeURIComponent(name)}=${encodeURIComponent(value)}`);
      expect([name, value, found.body.data]).toEqual([name, value, []]);
    }
});

test('a file may be named in any script, and with an emoji of several characters', async () => {
  for (const name of ['Rechnung März (2).pdf', '請求書.pdf', 'می‌خواهم.txt', '👩\u200d👧.png', 'a b..c']) {
    const { body } = attached({ name });
    const said = await api.expect(201, 'POST', `/conversations/${open}/reply`, { raw: String(body) });
    expect(said.body.data.attachments[0].name).toBe(name);
  }
});

test('an attachment needs no words, and its type and address are kept as they are sent', async () => {
  const attachment = {
    name: 'voice.webm',
    url: `HTTPS://Files.Example/${'x'.repeat(3_000)}?X-Amz-Signature=a%2Bb`,
    type: 'audio/webm;codecs=opus',
    size: 9_007_199_254_740_991,
  };
  for (const [what, message] of [
    ['reply', { type: 'attachment', attachments: [attachment] }],
    ['messages', { type: 'attachment', content: null, attachments: [{ ...attachment, type: 'text/plain; charset="utf-8"; x=1' }] }],
  ] as const) {
    const said = await api.expect(201, 'POST', `/conversations/${open}/${what}`, { body: { message } });
    expect(said.body.data).toMatchObject({ contentType: 'attachment', content: null, attachments: message.attachments });
    const read = await api.expect(200, 'GET', `/conversations/${open}`);
    expect(read.body.data.messages.at(-1)).toEqual(said.body.data);
    await api.backend.checkpoints.waitFor('core', (await api.backend.store.head()) as never, 10_000);
    const [listed] = (await api.expect(200, 'GET', '/conversations?limit=1')).body.data;
    expect(listed).toMatchObject({ id: open, lastMessage: said.body.data });
    const events = await api.expect(200, 'GET', `/conversations/${open}/events`);
    expect(events.body.data.at(-1).data).not.toHaveProperty('content');
  }
  await api.expect(201, 'POST', `/conversations/${open}/reply`, {
    body: { message: { type: 'card', content: { title: 'x', actions: [{ label: 'go', url: 'Http://a.example' }] } } },
  });
  const avatarUrl = `HTTP://a.example/${'x'.repeat(8_000)}`;
  const visitor = await api.expect(201, 'POST', '/visitors', { body: { name: 'Pic', avatarUrl } });
  expect(visitor.body.data.avatarUrl).toBe(avatarUrl);
});

test('If-Match may list revisions, of which one must be the resource’s; weak tags match nothing', async () => {
  const path = `/agents/${(await api.expect(201, 'POST', '/agents', { body: { name: 'Matched' } })).body.data.id as string}`;
  const put = async (ifMatch: string, name: string) =>
    (await api.call('PUT', path, { body: { name }, headers: { 'if-match': ifMatch } })).status;
  expect(await put('"5", "0"', 'one')).toBe(200);
  expect(await put('W/"1", "0"', 'two')).toBe(412);
  expect(await put('W/"1"', 'two')).toBe(412);
  expect(await put('"of-another-server,with-a-comma", W/"7" ,, "1"', 'two')).toBe(200);
  expect(await put('*', 'three')).toBe(200);
  // A visitor counts its own revisions, and an inbox and a key are looked at before they are archived.
  for (const [resource, body] of [
    ['inboxes', { name: 'Listed' }],
    ['api-keys', { name: 'Listed', role: 'agent' }],
  ] as const) {
    const { id } = (await api.expect(201, 'POST', `/${resource}`, { body })).body.data;
    expect((await api.call('DELETE', `/${resource}/${id}`, { headers: { 'if-match': '"3", "4"' } })).status).toBe(412);
    expect((await api.call('DELETE', `/${resource}/${id}`, { headers: { 'if-match': '"3", "0"' } })).status).toBe(204);
  }
});

test('where something is made, null counts as absent', async () => {
  const made = async (path: string, body: object) => (await api.expect(201, 'POST', path, { body })).body.data;
  const nulls = { subject: null, inboxId: null, customAttributes: null, priority: null, previousConversationId: null, as: null };
  const visitor = { id: null, userId: null, email: null, name: 'Nell', phone: null, plan: null, attributes: null, companyId: null };
  expect(await made('/conversations', { visitor, message: 'Hi', ...nulls })).toMatchObject({ subject: null, priority: 'normal' });
  expect(await made('/visitors', { ...visitor, avatarUrl: null })).toMatchObject({ name: 'Nell', avatarUrl: null });
  expect(await made('/companies', { id: 'nulls', name: 'x', attributes: null })).toMatchObject({ attributes: {} });
  expect(await made('/agents', { id: null, name: 'x', email: null, availability: null })).toMatchObject({ availability: 'online' });
  expect(await made('/teams', { id: null, name: 'x', agentIds: null })).toMatchObject({ agentIds: [] });
  const inbox = { id: null, description: null, email: null, color: null, icon: null, assignment: null, isDefault: null };
  expect(await made('/inboxes', { name: 'x', ...inbox, workingHours: null, autoResponder: null })).toMatchObject({ workingHours: null });
  expect(await made('/api-keys', { name: 'x', role: 'agent', agentId: null, expiresAt: null, rateLimitPerMinute: null })).toMatchObject({
    agentId: null,
  });
  await api.expect(200, 'POST', `/conversations/${resolved}/rating`, { body: { rating: 5, comment: null } });
});

test('a time zone is kept as the IANA database spells it', async () => {
  for (const [given, kept] of [
    ['europe/berlin', 'Europe/Berlin'],
    ['ASIA/KOLKATA', 'Asia/Kolkata'],
    ['utc', 'UTC'],
  ]) {
    const made = await api.expect(201, 'POST', '/inboxes', { body: { name: 'x', workingHours: { timezone: given, schedule: {} } } });
    expect(made.body.data.workingHours.timezone).toBe(kept);
  }
});

test('what looks dangerous and is only text is kept as it is', async () => {
  for (const text of [
    '=HYPERLINK("http://evil")',
    '<script>alert(1)</script>',
    "'; drop table conversations; --",
    '{{constructor}}',
    '${7*7}',
    '../../etc/passwd',
  ]) {
    const said = await api.expect(201, 'POST', `/conversations/${open}/reply`, { body: { message: text } });
    expect(said.body.data.content).toBe(text);
    await api.expect(200, 'POST', `/conversations/${open}/tags`, { body: { tags: [text] } });
  }
});
