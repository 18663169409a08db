import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CommandBus } from '@nestjs/cqrs';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { startLiveProjections, type LiveProjections } from '../../projections/live.js';
import { ApiKeyWriter } from '../../src/api-keys/api-key.writer.js';
import { AppModule } from '../../src/app.module.js';
import { type Backend, openBackend } from '../../src/backend.js';
import { readConfig } from '../../src/config.js';
import type { Position } from '../../src/event-store/event-store.js';
import { Metrics } from '../../src/metrics/metrics.js';
import { OrganizationWriter, systemContext } from '../../src/organizations/organization.writer.js';
import { createHttpApp } from '../../src/http/http-app.js';
import { randomIds } from '../../src/ids.js';
import { createLogger } from '../../src/log.js';
import type { Role } from '../../src/security/roles.js';
import { checkAnswer } from './answer-schemas.js';
import { ask } from './ask.js';
import { beginReadModelsAtHead } from './begin-at-head.js';
import { createDatabase } from './database.js';
import { TestClock } from './test-clock.js';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into answers of every shape; checkAnswer has checked it
  readonly body: any;
  /** The bytes as they came. */
  readonly text: string;
}

export interface CallOptions {
  readonly body?: unknown;
  /** Sent as it is, instead of `body`. */
  readonly raw?: string | Buffer;
  readonly headers?: Readonly<Record<string, string>>;
  /** The admin's key by default; null sends none. */
  readonly key?: string | null;
}

/** A whole Threadlog of the test's own: real HTTP on a free port, a real database, the projections live in the same process. */
export interface TestApi {
  readonly url: string;
  readonly organizationId: string;
  readonly adminKey: string;
  readonly clock: TestClock;
  readonly backend: Backend;
  /** The log's head before the first API over this database started: everything of the test comes after it. */
  readonly beganAfter: Position | 'start';
  readonly app: NestFastifyApplication;
  /** What was logged, one JSON object a line. */
  readonly logged: () => string;
  /** Sends a request below /api/support and holds the answer against its schema. */
  call(method: string, path: string, options?: CallOptions): Promise<Answer>;
  /** call() that fails unless the status is this one. */
  expect(status: number, method: string, path: string, options?: CallOptions): Promise<Answer>;
  /** A new key of a role, in the test's organization or another. */
  keyFor(role: Role, options?: { agentId?: string; organizationId?: string }): Promise<string>;
  /** Another tenant. */
  otherOrganization(): Promise<{ organizationId: string; adminKey: string }>;
  stop(): Promise<void>;
}

/** @param options.environment settings over those of the test */
export async function startApi(options: { environment?: Record<string, string>; database?: { url: string } } = {}): Promise<TestApi> {
  const database = options.database === undefined ? await createDatabase() : { ...options.database, drop: () => Promise.resolve() };
  const dataDir = await mkdtemp(join(tmpdir(), 'threadlog-api-'));
  const lines: string[] = [];
  const logger = createLogger('info', { write: (line) => void lines.push(line) });
  const config = readConfig({
    DATABASE_URL: database.url,
    DATA_DIR: dataDir,
    MASTER_KEY: randomBytes(32).toString('base64'),
    PORT: '0',
    DEMO: 'false',
    // Tests call as fast as they can and with many keys that are none; those of the limits set them.
    RATE_LIMIT_PER_MINUTE: '0',
    AUTH_FAILURES_PER_MINUTE: '0',
    ...(process.env['EVENTSTORE_URL'] === undefined ? {} : { EVENTSTORE_URL: process.env['EVENTSTORE_URL'] }),
    ...options.environment,
  });
  const clock = new TestClock();
  const backend = await openBackend(config, logger, { name: 'threadlog-test', clock });
  const beganAfter = await beginReadModelsAtHead(backend);
  const app = await createHttpApp(AppModule.over(backend) as never, {
    logger,
    trustProxy: config.TRUST_PROXY,
    corsOrigins: config.CORS_ORIGINS,
  });
  const projections: LiveProjections = await startLiveProjections(backend, {
    inFlight: () => backend.transactor.inFlight,
    commands: app.get(CommandBus),
    metrics: app.get(Metrics),
  });
  const organizations = app.get(OrganizationWriter);
  const { organizationId, adminKey } = await organizations.createOrganization('Test');
  await app.listen({ port: 0, host: '127.0.0.1' });
  const { port } = app.getHttpServer().address() as { port: number };
  const url = `http://127.0.0.1:${port}`;

  const call = async (method: string, path: string, given: CallOptions = {}): Promise<Answer> => {
    const key = given.key === undefined ? adminKey : given.key;
    const body = given.raw ?? (given.body === undefined ? undefined : JSON.stringify(given.body));
    const response = await ask(`${url}/api/support${path}`, {
      method,
      headers: {
        ...(key === null ? {} : { 'x-api-key': key }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...given.headers,
      },
      body,
    });
    const { text } = response;
    const isText = /^text\/csv|^application\/x-ndjson/.test(response.headers.get('content-type') ?? '');
    const parsed: unknown = isText ? text : text === '' ? undefined : JSON.parse(text);
    const asVisitor = key?.startsWith('tlv1.') === true || given.headers?.['authorization']?.includes('tlv1.') === true;
    checkAnswer(method, path.split('?', 1)[0] ?? '', response.status, response.headers.get('content-type'), parsed, asVisitor);
    return { status: response.status, headers: response.headers, body: parsed, text };
  };

  return {
    url,
    organizationId,
    adminKey,
    clock,
    backend,
    beganAfter,
    app,
    logged: () => lines.join(''),
    call,
    async expect(status, method, path, given) {
      const answer = await call(method, path, given);
      if (answer.status !== status) throw new Error(`${method} ${path}: ${answer.status} instead of ${status}: ${answer.text}`);
      return answer;
    },
    async keyFor(role, { agentId, organizationId: other = organizationId } = {}) {
      const made = await app
        .get(ApiKeyWriter)
        .create(systemContext(other, randomIds.next()), { name: `test ${role}`, role, ...(agentId === undefined ? {} : { agentId }) });
      return made.key;
    },
    otherOrganization: () => organizations.createOrganization('Other'),
    async stop() {
      await app.close();
      await projections.stop();
      await backend.close();
      await database.drop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
