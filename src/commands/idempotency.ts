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
 * Marks a POST whose stream follows from its address or its Idempotency-Key, not from its body. For such a POST the log itself detects a
 * key that comes again with another body. Every other POST needs a row, which costs a round trip.
 */
export const KeyInLog = () => SetMetadata(KEY_IN_LOG, true);

/** Whether the request carries a key that applies to its method. */
export const isKeyed = ({ method, headers }: FastifyRequest): boolean => method === 'POST' && headers['idempotency-key'] !== undefined;

/**
 * Turns the Idempotency-Key of a POST into the commandId that the log remembers. While a keyed request is in flight in this process, the
 * same key gets 409. Between processes the log decides: one of the two requests is answered with the other's events.
 */
export class IdempotencyKeys {
  private readonly inFlight = new Set<string>();
  private readonly over = new WeakSet<FastifyRequest>();
  /** The row that each request wrote. It is removed when the request is refused. */
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
   * Hashes method, path, query and body, regardless of white space and of the order of names. Earlier builds hashed address and body with
   * their names in the order in which they were sent.
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

  /** Ends a key's time in flight on the response's close event, which comes after an answer and also when the client went away. */
  install(server: FastifyInstance): void {
    server.addHook('onRequest', async (request, reply) => {
      reply.raw.once('close', () => {
        this.over.add(request);
        if (request.keyedCommandId !== undefined) this.inFlight.delete(request.keyedCommandId);
      });
    });
    // The key of a refused request must be free again before the client gets the answer.
    server.addHook('onSend', (request, reply, payload, done) => {
      const claimId = this.claimed.get(request);
      if (claimId === undefined || reply.statusCode < 400 || reply.statusCode >= 500) return done(null, payload);
      this.database
        .deleteFrom('keep.idempotency')
        .where('command_id', '=', claimId)
        .execute()
        .catch((error: unknown) => request.log.warn({ error: String(error) }, 'could not free the key of a refused request'))
        .finally(() => done(null, payload));
    });
  }
}

/**
 * Writes the row of a keyed request, unless there is one from the last 24 h.
 * @returns the stored answer, and whether it is the given one
 * @throws ThreadlogError idempotency_key_reused when the row belongs to another request
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
  // The row was removed between the two statements, so the key is new again.
  if (row === undefined) return keepAnswer(database, commandId, request, answer);
  if (!isSameRequest(row.request_hash, request)) throw new ThreadlogError('idempotency_key_reused');
  return { answer: row.answer, mine: false };
}

/** How long an Idempotency-Key is remembered. */
const KEEP = '24 hours';

/**
 * Id and secret of the resource that a request makes. For a keyed request both are stored, wrapped, as long as its key is remembered: the
 * log holds no secrets, so it cannot repeat the answer. The id is stored since a key that is used again after that time makes another one.
 * @param kind the kind of resource, such as `apikey`
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
  // Each body has its own row, so that a corrected request does not find the row of a refused one.
  const rowId = (hash: string) => derivedId('secret', commandId, hash);
  const earlier = earlierRequestHash === undefined ? undefined : await keptRow(database, rowId(earlierRequestHash));
  const { answer } = earlier ?? (await keepAnswer(database, rowId(requestHash), command, { id, wrapped }));
  const kept = answer as { id: string; wrapped: string };
  return { id: kept.id, secret: master.unwrap(nameOf(kept.id), Buffer.from(kept.wrapped, 'base64')).toString() };
}

/** Remembers keyed commands that appended nothing in rows, since the log cannot remember them. */
export class UnchangedAnswerRows implements UnchangedAnswers {
  constructor(private readonly database: Kysely<Database>) {}

  async find(commandId: string): Promise<{ requestHash: string; stream: string; revision: number } | undefined> {
    const row = await keptRow(this.database, commandId);
    return row === undefined ? undefined : { requestHash: row.request_hash, ...(row.answer as { stream: string; revision: number }) };
  }

  async save(commandId: string, request: RequestIdentity, answer: { readonly stream: string; readonly revision: number }): Promise<void> {
    await keepAnswer(this.database, commandId, request, answer);
  }

  /** Removes expired rows. The process that runs the projections calls this now and then. */
  async sweep(): Promise<void> {
    await this.database.deleteFrom('keep.idempotency').where('created_at', '<=', sinceKept).execute();
  }
}

/** Answers of keyed requests that the log cannot repeat, kept for as long as an Idempotency-Key is remembered. */
export class KeptAnswers {
  constructor(private readonly database: Kysely<Database>) {}

  /** The answer stored under this id; undefined when the request comes for the first time. */
  async find<T extends object>(id: string): Promise<T | undefined> {
    return (await keptRow(this.database, id))?.answer as T | undefined;
  }

  /** Stores an answer, or returns the answer that is already stored. @throws ThreadlogError idempotency_key_reused */
  async first<T extends object>(id: string, request: RequestIdentity, answer: T): Promise<T> {
    return (await keepAnswer(this.database, id, request, answer)).answer as T;
  }

  /** Replaces the preliminary answer by the complete one. */
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
