import { createHmac } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, sql } from 'kysely';
import { CLOCK, type Clock } from '../clock.js';
import { assertNotRefused, type CommandContext } from '../commands/command-context.js';
import { KeptAnswers } from '../commands/idempotency.js';
import { DATABASE, type Database } from '../database/database.js';
import { ThreadlogError } from '../errors.js';
import { derivedId } from '../ids.js';
import { ApiKeyLookup, type Principal } from '../security/api-key-lookup.js';
import { Callers } from '../security/callers.js';
import { MasterKey } from '../security/sealing.js';
import { secretHash } from '../security/secret-hash.js';

/** How long a ticket may be used (ms). */
const TICKET_MS = 30_000;
/** How long the row of an expired ticket stays. */
const KEPT = '1 minute';

export interface MadeTicket {
  readonly ticket: string;
  /** ISO instant. */
  readonly expiresAt: string;
}

/**
 * Tickets, with which a browser opens a socket: it can set no header, and a key in an address would end up in logs. A ticket opens one
 * socket, on any process, with the rights of the key or token that asked for it, and only while that is valid.
 */
@Injectable()
export class LiveTickets {
  readonly #key: Buffer;

  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(MasterKey) master: MasterKey,
    @Inject(KeptAnswers) private readonly kept: KeptAnswers,
    @Inject(ApiKeyLookup) private readonly apiKeys: ApiKeyLookup,
    @Inject(Callers) private readonly callers: Callers,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {
    this.#key = master.derive('live tickets');
  }

  /** A retry with the same Idempotency-Key gets the same ticket, used or not. @throws ThreadlogError idempotency_key_reused, revision_mismatch */
  async make(
    context: CommandContext,
    { visitorId, keyId, tokenGeneration, expiresAt: until }: Principal,
    actingFor: string | null,
  ): Promise<MadeTicket> {
    const { organizationId, commandId, keyed, ifMatch } = context;
    const id = derivedId('live ticket', commandId);
    let kept = keyed === true ? await this.kept.find<{ expiresAt: string }>(id) : undefined;
    if (kept === undefined) {
      assertNotRefused(context);
      if (ifMatch !== undefined) throw new ThreadlogError('revision_mismatch', 'a new ticket has no revision');
      kept = { expiresAt: new Date(this.clock.now() + TICKET_MS).toISOString() };
      if (keyed === true) kept = await this.kept.first(id, context, kept);
    }
    const ticket = this.ticket(id);
    await this.database
      .insertInto('keep.live_tickets')
      .values({
        organization_id: organizationId,
        id,
        hash: secretHash(ticket),
        key_id: visitorId === null ? keyId : null,
        acting_for: actingFor,
        visitor_id: visitorId,
        token_generation: tokenGeneration,
        token_expires_at: visitorId === null || until === null ? null : new Date(until),
        // The time of the first answer: a ticket whose row was swept must not come back as a valid ticket.
        expires_at: new Date(kept.expiresAt),
      })
      .onConflict((conflict) => conflict.columns(['organization_id', 'id']).doNothing())
      .execute();
    await this.database
      .deleteFrom('keep.live_tickets')
      .where('expires_at', '<', sql<Date>`now() - ${sql.lit(KEPT)}::interval`)
      .execute();
    return { ticket, expiresAt: kept.expiresAt };
  }

  /** A prefix that people and leak scanners recognize, and a text that only a holder of MASTER_KEY can make of the id. */
  private ticket(id: string): string {
    return `tlt_${createHmac('sha256', this.#key).update(id).digest('base64url')}`;
  }

  /** Uses a ticket up. Undefined when it is unknown, used or expired, or when the key or token behind it is no longer valid. */
  async use(ticket: string): Promise<{ readonly principal: Principal; readonly actingFor: string | null } | undefined> {
    const now = new Date(this.clock.now());
    const row = await this.database
      .updateTable('keep.live_tickets')
      .set({ used_at: now })
      .where('hash', '=', secretHash(ticket))
      .where('used_at', 'is', null)
      .where('expires_at', '>', now)
      .returningAll()
      .executeTakeFirst();
    if (row === undefined) return undefined;
    const { organization_id: organizationId, acting_for: actingFor, visitor_id: visitorId } = row;
    if (row.key_id !== null) {
      const principal = await this.apiKeys.byId(organizationId, row.key_id);
      return principal === undefined ? undefined : { principal, actingFor };
    }
    if (visitorId === null) return undefined;
    const principal = this.callers.visitor({
      organizationId,
      visitorId,
      generation: row.token_generation ?? 0,
      expiresAt: row.token_expires_at?.getTime() ?? 0,
    });
    return (await this.callers.isValid(principal)) ? { principal, actingFor: null } : undefined;
  }
}
