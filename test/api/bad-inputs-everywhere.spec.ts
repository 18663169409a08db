import { RequestMethod } from '@nestjs/common';
import { getMetadataStorage } from 'class-validator';
import { AppModule } from '../../src/app.module.js';
import { ERRORS, type ErrorCode } from '../../src/errors.js';
import { OUTSIDE_THE_API } from '../../src/http/routes.js';
import { instanceOf } from '../../src/http/validation.js';
import { problemSchema } from '../../src/http/problem.js';
import { startApi, type TestApi } from '../support/api.js';
import { ask } from '../support/ask.js';
import { eventsAfter } from '../support/events-after.js';

/*
 * The bad inputs that any route can get, sent to every route: the routes and the fields that they take are read from the controllers, so a
 * new one is tried without a line here. What only one route can get wrong is in bad-inputs.spec.ts.
 */

type Class = new () => object;

interface Route {
  readonly method: string;
  /** Below /api/support, with `:id`. */
  readonly path: string;
  readonly body: Class | undefined;
  readonly takesQuery: boolean;
}

/** Nest's numbers of the kinds of a handler's parameters. */
const BODY = 3;
const QUERY = 4;

const ROUTES: readonly Route[] = AppModule.controllers.flatMap((controller: { readonly name: string; readonly prototype: object }) => {
  const base = Reflect.getMetadata('path', controller) as string;
  // What lies outside the API reads no body, but for signing in, which has limits of its own: test/console/session.spec.ts.
  if (OUTSIDE_THE_API.some((outside) => outside === base)) return [];
  return Object.getOwnPropertyNames(controller.prototype).flatMap((name) => {
    const handler: unknown = (controller.prototype as Record<string, unknown>)[name];
    if (name === 'constructor' || typeof handler !== 'function' || !Reflect.hasMetadata('path', handler)) return [];
    const types = Reflect.getMetadata('design:paramtypes', controller.prototype, name) as Class[];
    const given = Object.entries(
      (Reflect.getMetadata('__routeArguments__', controller, name) ?? {}) as Record<string, { index: number; data: unknown }>,
    );
    const parameter = (kind: number) => given.find(([key, { data }]) => key.startsWith(`${kind}:`) && data === undefined)?.[1].index;
    const [body, query] = [parameter(BODY), parameter(QUERY)];
    const path = [base, Reflect.getMetadata('path', handler) as string].filter((part) => part !== '' && part !== '/').join('/');
    return [
      {
        method: RequestMethod[Reflect.getMetadata('method', handler) as number] ?? '',
        path: `/${path}`,
        body: body === undefined ? undefined : types[body],
        takesQuery: query !== undefined,
      },
    ];
  });
});

let api: TestApi;
let other: { organizationId: string; adminKey: string };
/** One of each resource, by its path: ours, and the other organization's. */
const own = new Map<string, string>();
const foreign = new Map<string, string>();

const MADE: Readonly<Record<string, object>> = {
  conversations: { visitor: { name: 'Ada' }, message: 'Hi' },
  visitors: { name: 'Ada' },
  companies: { id: 'acme', name: 'Acme' },
  inboxes: { name: 'Second' },
  agents: { name: 'Bo' },
  teams: { name: 'Billing' },
  'canned-responses': { title: 'Greeting', shortcut: '/hello', content: 'Hi!' },
  views: { name: 'Urgent', filter: {} },
  webhooks: { url: 'http://127.0.0.1:9/', events: ['conversation.rated'] },
  'automation-rules': { trigger: 'message.received', conditions: [], actions: [{ type: 'addTag', tag: 'x' }], enabled: false },
  'api-keys': { name: 'Key', role: 'agent' },
};

/** What a second one has to have different. */
const SECOND: Readonly<Record<string, object>> = { companies: { id: 'second' }, 'canned-responses': { shortcut: '/second' } };

beforeAll(async () => {
  api = await startApi({ environment: { WEBHOOK_ALLOWED_NETWORKS: '127.0.0.1/32' } });
  other = await api.otherOrganization();
  for (const [resource, body] of Object.entries(MADE)) {
    for (const [ids, key] of [
      [own, api.adminKey],
      [foreign, other.adminKey],
    ] as const) {
      const made = await api.expect(201, 'POST', `/${resource}`, {
        key,
        body: { ...body, ...(resource === 'companies' ? { id: `acme-${key.slice(-4)}` } : {}) },
      });
      ids.set(resource, made.body.data.id as string);
    }
  }
});
afterAll(() => api.stop());

const addressOf = ({ path }: Route, id: (resource: string) => string = (resource) => own.get(resource) ?? 'none') =>
  path.replace(/^\/([^/]+)\/:id/, (_, resource: string) => `/${resource}/${id(resource)}`).replaceAll(/:\w+/g, 'x');

interface Sent {
  readonly raw?: string;
  readonly headers?: Record<string, string>;
  readonly key?: string;
}

/** Sends it, and holds the answer against all that holds for every error. @returns what it says */
async function refused(
  route: Route,
  address: string,
  sent: Sent,
): Promise<{ code: ErrorCode; errors?: { field: string; message: string }[] }> {
  const { raw, headers = raw === undefined ? {} : { 'content-type': 'application/json' }, key = api.adminKey } = sent;
  const sentTo = `${api.url}/api/support${address}`;
  const response = await ask(sentTo, { method: route.method, headers: { 'x-api-key': key, ...headers }, body: raw });
  const { text } = response;
  const shown = `${route.method} ${address} ${raw?.slice(0, 200) ?? ''} → ${response.status} ${text.slice(0, 500)}`;
  if (response.status < 400 || response.status >= 500) throw new Error(shown);
  const problem = JSON.parse(text) as { code: ErrorCode; errors?: { field: string; message: string }[] };
  if (!problemSchema.safeParse(problem).success || ERRORS[problem.code].status !== response.status) throw new Error(shown);
  if (/node_modules|\.js:|at \w+ \(|SQLSTATE|kysely|FST_ERR|SyntaxError/.test(text)) throw new Error(shown);
  return problem;
}

/** Runs the attempts one after the other and expects that none of them wrote anything. */
async function writingNothing(attempts: () => Promise<void>): Promise<void> {
  const before = await api.backend.store.head();
  await attempts();
  expect(await eventsAfter(api, before)).toEqual([]);
}

const named = (routes: readonly Route[]) => routes.map((route) => [`${route.method} ${route.path}`, route] as const);
const withBody = ROUTES.filter(({ body }) => body !== undefined);

/** Names that every object has from its prototype, so that a careless look finds something there. */
const INHERITED = Object.getOwnPropertyNames(Object.prototype).filter((name) => name !== '__proto__' && name !== 'constructor');

describe('every route that takes a body refuses', () => {
  const BODIES: readonly [string, string, Record<string, string> | undefined, ErrorCode][] = [
    ['truncated JSON', '{"name":"x"', undefined, 'malformed_json'],
    ['nothing', '', { 'content-type': 'application/json' }, 'malformed_json'],
    ['[]', '[]', undefined, 'malformed_json'],
    ['null', 'null', undefined, 'malformed_json'],
    ['a string', '"str"', undefined, 'malformed_json'],
    ['text/plain', '{}', { 'content-type': 'text/plain' }, 'unsupported_media_type'],
    ['application/xml', '<a/>', { 'content-type': 'application/xml' }, 'unsupported_media_type'],
    ['application/json garbage', '{}', { 'content-type': 'application/json garbage' }, 'unsupported_media_type'],
    ['UTF-16', '{}', { 'content-type': 'application/json; charset=utf-16' }, 'unsupported_media_type'],
    ['gzip', '{}', { 'content-type': 'application/json', 'content-encoding': 'gzip' }, 'unsupported_media_type'],
    ['a name twice', '{"name":"a","name":"b"}', undefined, 'malformed_json'],
    ['__proto__', '{"__proto__":{"role":"admin"}}', undefined, 'malformed_json'],
    ['constructor.prototype', '{"constructor":{"prototype":{"role":"admin"}}}', undefined, 'malformed_json'],
    ['40 KB of [', `{"name":${'['.repeat(40_000)}`, undefined, 'malformed_json'],
    ['arrays 5,000 deep', `{"name":${'['.repeat(5_000)}${']'.repeat(5_000)}}`, undefined, 'malformed_json'],
    ['2 MB', JSON.stringify({ name: 'x'.repeat(2_000_000) }), undefined, 'payload_too_large'],
    ['NUL', String.raw`{"name":"a\u0000b"}`, undefined, 'malformed_json'],
    ['a lone surrogate', String.raw`{"name":"a\ud800b"}`, undefined, 'malformed_json'],
    ['a field of others', '{"organizationId":"acme"}', undefined, 'validation_failed'],
    ...INHERITED.map(
      (name) =>
        [`an inherited name, ${name}`, JSON.stringify({ [name]: 'acme' }), undefined, 'validation_failed'] as [
          string,
          string,
          undefined,
          ErrorCode,
        ],
    ),
    ['an empty name', '{"":1}', undefined, 'validation_failed'],
  ];
  test.each(named(withBody))('%s', (_, route) =>
    writingNothing(async () => {
      const address = addressOf(route);
      for (const [name, raw, headers, code] of BODIES) {
        const { code: told } = await refused(route, address, { raw, ...(headers === undefined ? {} : { headers }) });
        expect([name, told]).toEqual([name, code]);
      }
    }),
  );
});

/** Stands in JSON for a number that no double holds. */
const TOO_LARGE = 'too large a number';
const BLANKS = ['', '   ', '\u200b\u200b', '\u202e\u2066', '\u00a0\u3000', '\u2800'];
const NO_ADDRESSES = [
  'javascript:alert(1)',
  'data:text/html,x',
  'file:///etc/passwd',
  'http:evil.com',
  'evil.com',
  '//evil.com',
  'http://good@evil.com',
  'https://a b.example',
  '',
];
const NO_INSTANTS = [
  '2099-02-30T00:00:00Z',
  '2099-01-01T00:00:00',
  '2099-01-01',
  '2026-W01',
  '0000-01-01T00:00:00Z',
  '+275761-01-01T00:00:00Z',
  '294277-01-01T00:00:00Z',
  'tomorrow',
  '',
];

/** What no field of this kind takes, by the name of its check. null is left out, since it clears some fields. */
const BAD: Readonly<Record<string, readonly unknown[]>> = {
  isVisibleText: [...BLANKS, 5, true, { a: 1 }, ['a'], []],
  isTag: ['.', '..', ...BLANKS, 5, true, { a: 1 }, []],
  isTrueOrFalse: ['false', 'true', 0, 1, [true], {}],
  isWhole: [1.5, '1', TOO_LARGE, true, [1], {}],
  isInstant: [...NO_INSTANTS, 4_070_908_800_000, ['2099-01-01T00:00:00Z'], { at: 1 }],
  isHttpUrl: [...NO_ADDRESSES, 5, ['https://a.example']],
  isEmailAddress: [
    'ada',
    'a@b@example.com',
    `${'x'.repeat(330)}@example.com`,
    '@example.com',
    'a b@example.com',
    'a\u200bda@example.com',
    'ada\u202e@example.com',
    5,
    ['a@example.com'],
    '',
  ],
  isResourceId: ['', '.', '..', 'none', 'a b', 'a/b', 'ä', '..%2f', 'a\u200bb', 'x'.repeat(129), 5, { a: 1 }, ['a']],
  isOneOf: ['nobody has this', '', 'toString', 'constructor', 0, true, ['open'], {}],
  isAttributes: [
    [],
    'x',
    5,
    { a: {} },
    { a: [1] },
    { '': 1 },
    { ' ': 1 },
    { ['x'.repeat(65)]: 1 },
    { a: 'x'.repeat(1_001) },
    { a: TOO_LARGE },
    { a: 1, b: null, c: undefined, d: [] },
    { a: 9_007_199_254_740_992 },
    Object.fromEntries(Array.from({ length: 501 }, (_, i) => [`a${i}`, i])),
  ],
  isList: ['a', 5, true, { 0: 'a', length: 1 }],
  isNestedList: ['a', 5, true, {}, [5], [null], [[]]],
  isSchedule: [[], 'x', 5, { mon: [] }, { monday: 'x' }, { monday: [['9', '10']] }],
  isMatching: ['x', 5, {}],
  isMediaType: ['', 'x', 'a/b\r\nc', 'a/b;', 'a/b;c', 'a/b;c="', 'a/b;c=d e', 5],
  isRecord: ['a', 5, true, [], [[]]],
  isTimeZone: ['Mars/Olympus', 'BST', 'PST', '', 'utc+25', 5, {}],
};
/** What no field takes at all: bounded in characters, with a list three deep, and a number that JSON cannot hold. */
const ALWAYS_BAD: readonly unknown[] = ['x'.repeat(200_000), [[[[]]]], TOO_LARGE];

interface Field {
  readonly name: string;
  readonly checks: readonly { readonly name: string; readonly each: boolean }[];
}

function fieldsOf(type: Class): Field[] {
  const fields = new Map<string, { name: string; each: boolean }[]>();
  for (const { propertyName, type: kind, name = kind, each } of getMetadataStorage().getTargetValidationMetadatas(type, '', true, false))
    fields.set(propertyName, [...(fields.get(propertyName) ?? []), { name, each }]);
  return [...fields].map(([name, checks]) => ({ name, checks }));
}

/** Bad values of a field, and with them those of the fields of the objects that it holds. */
function badValues(type: Class, { name, checks }: Field): unknown[] {
  const values: unknown[] = [...ALWAYS_BAD];
  // A message may be written as its text alone.
  const takesText = typeof (instanceOf(type, { [name]: 'a' }) as Record<string, unknown>)[name] === 'object';
  for (const check of checks) {
    const bad = (BAD[check.name] ?? []).filter((value) => !(takesText && value === 'a'));
    values.push(...(check.each ? bad.map((value) => [value]) : bad));
  }
  for (const [inside, wrap] of [
    [(instanceOf(type, { [name]: {} }) as Record<string, unknown>)[name], (value: object): unknown => value],
    [
      ((instanceOf(type, { [name]: [{}] }) as Record<string, unknown>)[name] as unknown[] | undefined)?.[0],
      (value: object): unknown => [value],
    ],
  ] as const) {
    if (typeof inside !== 'object' || inside === null || inside.constructor === Object || Array.isArray(inside)) continue;
    const nested = inside.constructor as Class;
    values.push(wrap({ unheardOf: 1 }), wrap({ hasOwnProperty: 1 }));
    for (const field of fieldsOf(nested)) for (const value of badValues(nested, field)) values.push(wrap({ [field.name]: value }));
  }
  return values;
}

describe('every field of every body refuses what is not of its kind, by its name', () => {
  test.each(named(withBody))('%s', (_, route) =>
    writingNothing(async () => {
      const address = addressOf(route);
      const type = route.body as Class;
      const fields = fieldsOf(type);
      expect(fields.length).toBeGreaterThan(0);
      for (const field of fields)
        for (const value of badValues(type, field)) {
          const raw = JSON.stringify({ [field.name]: value }).replaceAll(JSON.stringify(TOO_LARGE), '1e400');
          const { code, errors = [] } = await refused(route, address, { raw });
          const own = errors.filter(({ field: told }) => told.split(/[.[]/, 1)[0] === field.name);
          // One thing is said of each, by a path that has its index, and in our words.
          const once = new Set(own.map(({ field: told }) => told)).size === own.length;
          const ours = own.every(
            ({ field: told, message }) => !/\.\d/.test(told) && !/each value|property |should|conforming/.test(message),
          );
          if (code !== 'validation_failed' || own.length === 0 || !once || !ours)
            throw new Error(`${raw.slice(0, 200)}: ${code} ${JSON.stringify(errors)}`);
        }
    }),
  );
});

/** Bodies that are taken, where MADE has none: what is emptied in them is met by more than the check of what is missing. */
const TAKEN: Readonly<Record<string, readonly object[]>> = {
  '/conversations': [{ ...MADE['conversations'], customAttributes: { plan: 'pro' }, tags: ['a'] }],
  '/conversations/bulk': [
    { filter: { status: ['open'], tag: ['a'], customAttributes: { plan: 'pro' } }, action: { type: 'addTags', tags: ['b'] } },
    { filter: {}, action: { type: 'note', message: { type: 'text', content: 'x' } } },
  ],
  '/conversations/:id': [{ subject: 'x', priority: 'low', customAttributes: { plan: 'pro' } }],
  '/conversations/:id/reply': [
    { message: { type: 'card', content: { title: 'x', actions: [{ label: 'x', action: 'y' }] } } },
    { message: { type: 'attachment', attachments: [{ url: 'https://a.example/x.png', type: 'image/png', name: 'x.png', size: 1 }] } },
  ],
  '/visitors/:id': [{ name: 'Bo', attributes: { plan: 'pro' } }],
  '/visitor-tokens': [{ visitor: { email: 'ada@example.com' } }],
  '/views': [{ name: 'Urgent', filter: { status: ['open'], tag: ['a'], customAttributes: { plan: 'pro' } }, sort: { by: 'createdAt' } }],
  '/inboxes/:id': [{ workingHours: { timezone: 'UTC', days: {} }, autoResponder: { message: 'x' }, assignment: { mode: 'manual' } }],
};

/** A body with each of its fields, and of the fields of the objects in it, emptied in every way. */
function emptied(type: Class, taken: object): object[] {
  return fieldsOf(type).flatMap(({ name }) => {
    const given = (taken as Record<string, unknown>)[name];
    const put = (value: unknown) => ({ ...taken, [name]: value });
    const inside = (example: unknown, list: boolean): object[] => {
      const made = (instanceOf(type, { [name]: list ? [example] : example }) as Record<string, unknown>)[name];
      const nested: unknown = list ? (made as unknown[] | undefined)?.[0] : made;
      if (typeof nested !== 'object' || nested === null || nested.constructor === Object || Array.isArray(nested)) return [];
      return emptied(nested.constructor as Class, example as object).map((value) => put(list ? [value] : value));
    };
    const example = Array.isArray(given) ? (given as unknown[])[0] : given;
    const nested = inside(typeof example === 'object' && example !== null ? example : {}, Array.isArray(given));
    return [...[null, [], {}, '', [null]].map(put), ...nested];
  });
}

describe('every field of every body that is empty is taken or refused, and is no fault', () => {
  test.each(named(withBody))('%s', async (_, route) => {
    const resource = route.path.split('/')[1] ?? '';
    for (const taken of TAKEN[route.path] ?? [MADE[resource] ?? {}])
      for (const body of emptied(route.body as Class, taken)) {
        const answer = await api.call(route.method, addressOf(route), { body });
        if (answer.status >= 500 || answer.status === 0) throw new Error(`${JSON.stringify(body)}: ${answer.status}`);
      }
  });
});

describe('every address with a query refuses', () => {
  const QUERIES = [
    'limit=0',
    'limit=-1',
    'limit=abc',
    'limit=',
    'limit=100000',
    'limit=1e2',
    'limit=0x10',
    'limit=1.5',
    'limit=1&limit=2',
    'unknown=1',
    'status[$ne]=x',
    'status[]=open',
    '__proto__=1',
    'constructor=1',
    ...INHERITED.map((name) => `${name}=1`),
    'organizationId=acme',
    'sort=name%27--',
    // PostgreSQL has no year 0.
    ...['at', 'from', 'to', 'createdAfter', 'createdBefore', 'updatedAfter', 'updatedBefore'].map((name) => `${name}=0000-01-01T00:00:00Z`),
  ];
  test.each(named(ROUTES.filter(({ takesQuery }) => takesQuery)))('%s', (_, route) =>
    writingNothing(async () => {
      for (const query of QUERIES)
        expect([query, (await refused(route, `${addressOf(route)}?${query}`, {})).code]).toEqual([query, 'validation_failed']);
    }),
  );
});

describe('every list', () => {
  const lists = ROUTES.filter(
    ({ method, path, takesQuery }) => method === 'GET' && takesQuery && !path.includes(':') && path.slice(1) in MADE,
  );
  test.each(named(lists))('%s takes no cursor that is forged, another organization’s or another list’s', async (_, route) => {
    // Every organization has two of each at least, but for the other's.
    if (!['/inboxes', '/api-keys'].includes(route.path))
      await api.expect(201, 'POST', route.path, {
        body: { ...MADE[route.path.slice(1)], ...SECOND[route.path.slice(1)] },
      });
    await api.backend.checkpoints.waitFor('core', (await api.backend.store.head()) as never, 10_000);
    const first = await api.expect(200, 'GET', `${route.path}?limit=1&sort=createdAt`);
    const cursor = first.body.meta.nextCursor as string;
    await api.expect(200, 'GET', `${route.path}?limit=1&sort=createdAt&cursor=${cursor}`);
    const [body = '', mac = ''] = cursor.split('.');
    const forged = `${Buffer.from(JSON.stringify([0, 'x'])).toString('base64url')}.${mac}`;
    for (const bad of ['x', '', '.', `${cursor}.x`, `${body}.`, `.${mac}`, `${body}x.${mac}`, forged, cursor.slice(0, -1)])
      expect([bad, (await refused(route, `${route.path}?sort=createdAt&cursor=${bad}`, {})).code]).toEqual([bad, 'validation_failed']);
    expect((await refused(route, `${route.path}?sort=createdAt&cursor=${cursor}`, { key: other.adminKey })).code).toBe('validation_failed');
    expect((await refused(route, `${route.path}?sort=createdAt&order=asc&cursor=${cursor}&limit=1`, {})).code).toBe('validation_failed');
    for (const another of lists)
      if (another !== route)
        expect((await refused(another, `${another.path}?sort=createdAt&cursor=${cursor}`, {})).code).toBe('validation_failed');
  });
});

describe('every address with an id names nothing by', () => {
  const withId = ROUTES.filter(({ path }) => /^\/[^/]+\/:id/.test(path));
  const UNKNOWN = '00000000-0000-0000-0000-000000000000';
  test.each(named(withId))('%s', (_, route) =>
    writingNothing(async () => {
      const sent: Sent = route.body === undefined ? {} : { raw: '{}' };
      const ask = async (id: string) => {
        const { code } = await refused(
          route,
          addressOf(route, () => id),
          sent,
        );
        return code;
      };
      const unknown = await ask(UNKNOWN);
      // A body that lacks a field is told before the id is looked for; everything else is told of the id.
      expect(['not_found', ...(route.method === 'POST' ? (['validation_failed'] as const) : [])]).toContain(unknown);
      const resource = route.path.split('/')[1] ?? '';
      const uuid = (own.get(resource) ?? '').toUpperCase();
      for (const id of [
        '1',
        '%00',
        '..%2f',
        '%20',
        'a%2Fb',
        'x'.repeat(200),
        encodeURIComponent('ä'),
        foreign.get(resource) ?? 'foreign',
        ...(/[A-F]/.test(uuid) ? [uuid] : []),
      ])
        expect([id, await ask(id)]).toEqual([
          id,
          id.length > 128 || /%/.test(id) ? expect.stringMatching(/^(not_found|validation_failed)$/) : unknown,
        ]);
      // Bytes that are no text are found out before any route.
      expect(
        (
          await refused(
            route,
            addressOf(route, () => '%E0%A4%A'),
            sent,
          )
        ).code,
      ).toBe('not_found');
    }),
  );
});
