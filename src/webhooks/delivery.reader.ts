import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, sql } from 'kysely';
import { conversationAggregate } from '../conversations/conversation.js';
import { DATABASE, type Database } from '../database/database.js';
import { ThreadlogError } from '../errors.js';
import { Cursors } from '../read-models/paging.js';
import { VisitorKeys } from '../security/visitor-keys.js';
import {
  type AttemptAnswer,
  DELIVERY_STATUSES,
  type DeliveriesPage,
  deliveryAnswer,
  type DeliveryRow,
  type DeliveryStatus,
} from './delivery.answer.js';
import { attemptAnswer, storedAttempts } from './delivery.attempt.js';

export interface DeliveryFilter {
  readonly status?: readonly DeliveryStatus[];
  readonly event?: readonly string[];
  readonly conversationId?: string;
  /** When the delivery was made (ms), both included. */
  readonly from?: number;
  readonly to?: number;
}

const COLUMNS = sql.raw(
  'seq, id, event, kind, stream_id, position, status, attempts, next_attempt_at, last_status, last_error, created_at, delivered_at',
);
/** A time as PostgreSQL has it, finer than a Date (µs since 1970). */
const CREATED_US = sql.raw('(extract(epoch from created_at) * 1000000)::bigint');

/** Reads deliveries and their attempts. */
@Injectable()
export class DeliveryReader {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(Cursors) private readonly cursors: Cursors,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
  ) {}

  /** The newest deliveries of an endpoint first. @throws ThreadlogError validation_failed for a cursor of another list */
  async page(
    organizationId: string,
    webhookId: string,
    filter: DeliveryFilter,
    { limit, cursor }: { readonly limit: number; readonly cursor: string | undefined },
  ): Promise<DeliveriesPage> {
    const scope = JSON.stringify(['webhook-deliveries', organizationId, webhookId, filter]);
    const { status = DELIVERY_STATUSES, event, conversationId, from, to } = filter;
    const conditions = [
      sql`organization_id = ${organizationId} and webhook_id = ${webhookId}`,
      ...(event === undefined ? [] : [sql`event = any (${event}::text[])`]),
      ...(conversationId === undefined ? [] : [sql`kind = ${conversationAggregate.kind} and stream_id = ${conversationId}`]),
      ...(from === undefined ? [] : [sql`created_at >= ${new Date(from)}`]),
      // The stored time is finer than the answered one.
      ...(to === undefined ? [] : [sql`created_at < ${new Date(to + 1)}`]),
    ];
    if (cursor !== undefined) {
      const [us, seq] = this.cursors.read(scope, cursor);
      conditions.push(sql`(created_at, seq) < (timestamptz 'epoch' + ${us}::float8 * interval '1 microsecond', ${seq}::bigint)`);
    }
    const newestFirst = sql`order by created_at desc, seq desc limit ${limit + 1}`;
    // Each status is a part of the index in the order of the list. One query over several would read and sort all of them.
    const parts = status.map(
      (one) => sql`(
        select ${COLUMNS}, ${CREATED_US} as created_us from keep.webhook_deliveries
        where ${sql.join([...conditions, sql`status = ${one}`], sql` and `)} ${newestFirst})`,
    );
    const { rows } = await sql<DeliveryRow & { readonly created_us: number }>`
      select * from (${sql.join(parts, sql` union all `)}) d ${newestFirst}`.execute(this.database);
    const shown = rows.slice(0, limit);
    const last = shown.at(-1);
    const hasMore = rows.length > limit;
    return {
      data: shown.map(deliveryAnswer),
      meta: { limit, hasMore, nextCursor: hasMore && last !== undefined ? this.cursors.sign(scope, [last.created_us, last.seq]) : null },
    };
  }

  /** @throws ThreadlogError not_found */
  async one(organizationId: string, webhookId: string, id: string): Promise<DeliveryRow & { readonly log: unknown }> {
    const { rows } = await sql<DeliveryRow & { readonly log: unknown }>`
      select ${COLUMNS}, log from keep.webhook_deliveries
      where id = ${UUID.test(id) ? id : null}::uuid and organization_id = ${organizationId} and webhook_id = ${webhookId}`.execute(
      this.database,
    );
    const [row] = rows;
    if (row === undefined) throw new ThreadlogError('not_found');
    return row;
  }

  /** The attempts of a delivery, oldest first, their answers unsealed. */
  async attempts(organizationId: string, { id, log }: { readonly id: string; readonly log: unknown }): Promise<AttemptAnswer[]> {
    const stored = storedAttempts(log);
    const keys = await this.keys.findMany(
      organizationId,
      stored.flatMap(({ keyId }) => keyId ?? []),
    );
    return stored.map((one) => attemptAnswer(id, one, keys));
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
