import { SetMetadata } from '@nestjs/common';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { type Kysely, sql } from 'kysely';
import { type CommandContext, isSameRequest, type RequestIdentity } from './command-context.js';
import type { UnchangedAnswers } from './transactor.js';
import type { Principal } from '../security/api-key-lookup.js';
import { canonicalJson } from '../texts/canonical-json.js';
import type { Database } from '../database/database.js';
import { ThreadlogError } from '../errors.js';
import { derivedId } from '../ids.js';
import type { MasterKey } from '../security/sealing.js';
import { keyedHash, type VisitorKeys } from '../security/visitor-keys.js';

/** Printable ASCII; quotes around it (the structured-field form of the IETF draft) are part of the key. */
const KEY = /^[\x21-\x7e]{1,255}$/;

const KEY_IN_LOG = 'threadlog:key-in-log';

/**
 * A POST whose stream follows from its address or its Idempotency-Key, and not from its body: there the log itself knows a key that comes
 * again with another body. For every other POST a row does, which costs a round trip.
 */
export const KeyInLog = () => SetMetadata(KEY_IN_LOG, true);

/** Whether the request carries a key that holds for its method. */
export const isKeyed = ({ method, headers }: FastifyRequest): boolean => method === 'POST' && headers['idempotency-key'] !== undefined;

/**
 * Turns the Idempotency-Key of a POST into the commandId that the log remembers. While a keyed request is in flight in this process, the
 * same key is 409; in another process the log itself decides: one of the two is answered with the other's events.
 */
export class IdempotencyKeys {
  private readonly inFlight = new Set<string>();
  private readonly over = new WeakSet<FastifyRequest>();
  /** Rows that a request wrote, which go again when it is refused. */
  private readonly claimed = new WeakMap<FastifyRequest, string>();

  constructor(
    private readonly keys: VisitorKeys,
    private readonly database: Kysely<Database>,
  ) {}

  /**
   * Called by the guard once the caller is known and the body parsed.
   * @throws ThreadlogError malformed_request, idempotency_key_in_flight, idempotency_key_reused
   */
  async begin(request: FastifyRequest, principal: Principal, handler: object): Promise<void> {
    if (!isKeyed(request)) return;
    const header = request.headers['idempotency-key'];
    if (typeof header !== 'string' || !KEY.test(header))
      throw new ThreadlogError('malformed_request', 'an Idempotency-Key is 1 to 255 visible ASCII characters');
    const { organizationId, keyId } = principal;
    const path = request.url.split('?', 1)[0] ?? '';
    // The same key, method and path give the same id in every process.
    const commandId = derivedId('command', keyId, request.method, path, header);
    if (this.inFlight.has(commandId)) throw new ThreadlogError('idempotency_key_in_flight', undefined, { retryAfterSeconds: 1 });
    if (!this.over.has(request)) this.inFlight.add(commandId);
    request.keyedCommandId = commandId;
    request.identity = await this.identify(request, organizationId);
    if (Reflect.getMetadata(KEY_IN_LOG, handler) === true) return;
    const claimId = derivedId('key', commandId);
    const { mine } = await keepAnswer(this.database, claimId, request.identity, {});
    if (mine) this.claimed.set(request, claimId);
  }

  /**
   * Method, path, query and body, whatever the order of names and the white space. Earlier builds took the address and the body with their
   * names in the order in which they were sent.
   */
  async identify(request: FastifyRequest, organizationId: string): Promise<RequestIdentity> {
    const { method, url, query } = request;
    const body = request.body ?? null;
    const [path = ''] = url.split('?', 1);
    const key = await this.keys.hashKey(organizationId);
    const address = path === url ? path : `${path}?${canonicalJson(query)}`;
    const requestHash = keyedHash(key, 'request', method, address, canonicalJson(body));
    const earlierRequestHash = keyedHash(key, 'request', method, url, JSON.stringify(body));
    return earlierRequestHash === requestHash ? { requestHash } : { requestHash, earlierRequestHash };
  }

  /** Ends with the answer, and also when the client went away before it: the response is closed in both cases, and finished in one. */
  install(server: FastifyInstance): void {
    server.addHook('onRequest', async (request, reply) => {
      reply.raw.once('close', () => {
        this.over.add(request);
        if (request.keyedCommandId !== undefined) this.inFlight.delete(request.keyedCommandId);
      });
    });
    // The key of a request that was refused is free again by the time the client knows.
    server.addHook('onSend', (request, reply, payload, done) => {
      const claimId = this.claimed.get(request);
      if (claimId === undefined || reply.statusCode < 400 || reply.statusCode >= 500) return done(null, payload);
      this.database
        .deleteFrom('keep.idempotency')
        .where('command_id', '=', claimId)
        .execute()
        .catch((error: unknown) => request.log.warn({ error: String(error) }, 'the key of a refused request stays with its body'))
        .finally(() => done(null, payload));
    });
  }
}

/**
 * Writes the row of a keyed request, unless there is one from the last 24 h.
 * @returns the answer that is kept, and whether it is the given one
 * @throws ThreadlogError idempotency_key_reused when the row is another request's
 */
export async function keepAnswer(
  database: Kysely<Database>,
  commandId: string,
  request: RequestIdentity,
  answer: object,
): Promise<{ readonly answer: unknown; readonly mine: boolean }> {
  const written = await database
    .insertInto('keep.idempotency')
    .values({ command_id: commandId, request_hash: request.requestHash, answer: JSON.stringify(answer) })
    .onConflict((conflict) =>
      conflict
        .column('command_id')
        .doUpdateSet((row) => ({
          request_hash: row.ref('excluded.request_hash'),
          answer: sql<string>`excluded.answer`,
          created_at: row.ref('excluded.created_at'),
        }))
        .where('keep.idempotency.created_at', '<=', sinceKept),
    )
    .returning('answer')
    .executeTakeFirst();
  if (written !== undefined) return { answer: written.answer, mine: true };
  const row = await database
    .selectFrom('keep.idempotency')
    .select(['request_hash', 'answer'])
    .where('command_id', '=', commandId)
    .executeTakeFirst();
  // Swept, or given back, between the two looks: as good as new.
  if (row === undefined) return keepAnswer(database, commandId, request, answer);
  if (!isSameRequest(row.request_hash, request)) throw new ThreadlogError('idempotency_key_reused');
  return { answer: row.answer, mine: false };
}

/** How long an Idempotency-Key is remembered. */
const KEEP = '24 hours';

/**
 * Id and secret of what a request makes. Those of a keyed request are kept, wrapped, for as long as its key is remembered: the log holds no
 * secrets, so it cannot answer the request again by itself. The id is kept with them, since a key used again after that makes another.
 * @param kind of what is made, such as `apikey`
 */
export async function secretOf(
  database: Kysely<Database>,
  master: MasterKey,
  command: CommandContext,
  kind: string,
  newSecret: () => string,
): Promise<{ readonly id: string; readonly secret: string }> {
  const { organizationId, commandId, requestHash, earlierRequestHash, keyed } = command;
  const secret = newSecret();
  if (keyed !== true) return { id: derivedId(kind, commandId), secret };
  const nameOf = (id: string) => `secret ${kind} ${organizationId} ${id}`;
  const id = derivedId(kind, commandId, secret);
  const wrapped = master.wrap(nameOf(id), Buffer.from(secret)).toString('base64');
  // A row for each body: what was refused leaves none that a mended request would meet.
  const rowId = (hash: string) => derivedId('secret', commandId, hash);
  const earlier = earlierRequestHash === undefined ? undefined : await keptRow(database, rowId(earlierRequestHash));
  const { answer } = earlier ?? (await keepAnswer(database, rowId(requestHash), command, { id, wrapped }));
  const kept = answer as { id: string; wrapped: string };
  return { id: kept.id, secret: master.unwrap(nameOf(kept.id), Buffer.from(kept.wrapped, 'base64')).toString() };
}

/** Keyed commands that appended nothing: the log cannot remember them, so a row does. */
export class UnchangedAnswerRows implements UnchangedAnswers {
  constructor(private readonly database: Kysely<Database>) {}

  async find(commandId: string): Promise<{ requestHash: string; stream: string; revision: number } | undefined> {
    const row = await keptRow(this.database, commandId);
    return row === undefined ? undefined : { requestHash: row.request_hash, ...(row.answer as { stream: string; revision: number }) };
  }

  async save(commandId: string, request: RequestIdentity, answer: { readonly stream: string; readonly revision: number }): Promise<void> {
    await keepAnswer(this.database, commandId, request, answer);
  }

  /** Removes what is no longer promised; called now and then by the process that runs the projections. */
  async sweep(): Promise<void> {
    await this.database.deleteFrom('keep.idempotency').where('created_at', '<=', sinceKept).execute();
  }
}

/** Answers of keyed requests that the log cannot give again, kept for as long as an Idempotency-Key is remembered. */
export class KeptAnswers {
  constructor(private readonly database: Kysely<Database>) {}

  /** What was kept under this id; undefined when the request is here for the first time. */
  async find<T extends object>(id: string): Promise<T | undefined> {
    return (await keptRow(this.database, id))?.answer as T | undefined;
  }

  /** Keeps an answer, unless one is kept already: that one is answered then. @throws ThreadlogError idempotency_key_reused */
  async first<T extends object>(id: string, request: RequestIdentity, answer: T): Promise<T> {
    return (await keepAnswer(this.database, id, request, answer)).answer as T;
  }

  /** Puts the whole answer in the place of what was kept while it was made. */
  async complete(id: string, answer: object): Promise<void> {
    await this.database
      .updateTable('keep.idempotency')
      .set({ answer: JSON.stringify(answer) })
      .where('command_id', '=', id)
      .execute();
  }
}

const keptRow = (database: Kysely<Database>, id: string) =>
  database
    .selectFrom('keep.idempotency')
    .select(['request_hash', 'answer'])
    .where('command_id', '=', id)
    .where('created_at', '>', sinceKept)
    .executeTakeFirst();

const sinceKept = sql<Date>`now() - ${sql.lit(KEEP)}::interval`;
