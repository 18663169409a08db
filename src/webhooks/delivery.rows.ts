import { type Kysely, sql } from 'kysely';
import type { Database } from '../database/database.js';
import { ThreadlogError } from '../errors.js';

/** The kind of jobs that send deliveries. A job's key is the id of its delivery. */
export const DELIVER_WEBHOOK = 'deliver-webhook';

/** An event that an endpoint is told. */
export interface NewDelivery {
  /** Follows from the endpoint and the event, so that an event that comes again makes no second delivery. */
  readonly id: string;
  readonly organizationId: string;
  readonly webhookId: string;
  readonly event: string;
  /** The stream that the body is made from. */
  readonly kind: string;
  readonly streamId: string;
  /** -1 for a ping, which tells no stored event. */
  readonly revision: number;
  readonly index: number;
  readonly position: string;
}

/** The jobs of one endpoint share its connections and its pace. */
export const receiverOf = ({ organizationId, webhookId }: Pick<NewDelivery, 'organizationId' | 'webhookId'>): string =>
  `${organizationId}.${webhookId}`;

/** What an endpoint is told of one stream comes in order. Pings overtake. */
export const laneOf = ({ webhookId, kind, streamId, revision }: NewDelivery): string | undefined =>
  revision < 0 ? undefined : `${DELIVER_WEBHOOK} ${webhookId} ${kind} ${streamId}`;

/**
 * Adds the rows of deliveries and answers those that were not there. The caller adds their jobs in the same transaction.
 * @param now ms; the database's clock when absent
 */
export async function insertDeliveries(
  tx: Kysely<Database>,
  deliveries: readonly NewDelivery[],
  now: number | undefined,
): Promise<readonly NewDelivery[]> {
  if (deliveries.length === 0) return [];
  const given = deliveries.map(({ id, organizationId, webhookId, event, kind, streamId, revision, index, position }) => ({
    id,
    organization_id: organizationId,
    webhook_id: webhookId,
    event,
    kind,
    stream_id: streamId,
    revision,
    index,
    position,
  }));
  const at = now === undefined ? sql`clock_timestamp()` : sql`to_timestamp(${now}::float8 / 1000)`;
  const { rows } = await sql<{ id: string }>`
    insert into keep.webhook_deliveries
      (id, organization_id, webhook_id, event, kind, stream_id, revision, index, position, status, next_attempt_at, created_at)
    select g.id, g.organization_id, g.webhook_id, g.event, g.kind, g.stream_id, g.revision, g.index, g.position, 'pending', at, at
    from rows from (jsonb_to_recordset(${JSON.stringify(given)}::jsonb) as (
      id uuid, organization_id text, webhook_id text, event text, kind text, stream_id text, revision integer, index smallint, position text
    )) with ordinality as g(id, organization_id, webhook_id, event, kind, stream_id, revision, index, position, nr),
      (select ${at} as at) clock
    order by g.nr
    on conflict (id) do nothing returning id`.execute(tx);
  const made = new Set(rows.map(({ id }) => id));
  return deliveries.filter(({ id }) => made.has(id));
}

/** Gives up whatever an endpoint has not been sent, in the caller's transaction. What is under way may still arrive. */
export async function giveUpDeliveries(tx: Kysely<Database>, organizationId: string, webhookId: string, because: string): Promise<void> {
  const receiver = receiverOf({ organizationId, webhookId });
  const { rows } = await sql<{ key: string }>`
    select key from keep.jobs where receiver = ${receiver} and kind = ${DELIVER_WEBHOOK}`.execute(tx);
  if (rows.length === 0) return;
  const keys = rows.map(({ key }) => key);
  // It locks the lanes and gives each its next head. Otherwise a delivery that is added meanwhile would wait for ever behind a removed one.
  await sql`select keep.remove_jobs(array_fill(${DELIVER_WEBHOOK}::text, array[${keys.length}::integer]), ${keys}::text[])`.execute(tx);
  await sql`
    update keep.webhook_deliveries set status = 'given_up', last_error = coalesce(last_error, ${because}), next_attempt_at = null
    where id = any(${keys}::uuid[]) and status in ('pending', 'failed')`.execute(tx);
}

/** How long deliveries are kept once they were delivered or given up. */
export const KEPT_DAYS = 30;
const REMOVED_AT_ONCE = 5_000;

/** Removes old deliveries. @param now ms */
export async function removeOldDeliveries(database: Kysely<Database>, now: number): Promise<void> {
  for (;;) {
    const { numAffectedRows } = await sql`
      delete from keep.webhook_deliveries where id in (
        select id from keep.webhook_deliveries
        where created_at < ${new Date(now - KEPT_DAYS * 86_400_000)} and status in ('delivered', 'given_up') limit ${REMOVED_AT_ONCE}
      )`.execute(database);
    if (Number(numAffectedRows ?? 0) < REMOVED_AT_ONCE) return;
  }
}

/**
 * Has a delivery sent as soon as can be: it overtakes the deliveries of its conversation that it waits behind. A delivery that is under way is
 * sent once more.
 * @param now ms; the database's clock when absent
 */
export async function sendSoon(
  tx: Kysely<Database>,
  { id, organizationId, webhookId }: Pick<NewDelivery, 'id' | 'organizationId' | 'webhookId'>,
  now: number | undefined,
): Promise<void> {
  const receiver = receiverOf({ organizationId, webhookId });
  const at = now === undefined ? sql`null::timestamptz` : sql`to_timestamp(${now}::float8 / 1000)`;
  await sql`select keep.resend_delivery(${DELIVER_WEBHOOK}, ${id}::uuid, ${receiver}, ${organizationId}, ${at})`.execute(tx);
}

/** Wakes the senders of all processes, once a transaction that added deliveries is over. */
export async function wakeSenders(database: Kysely<Database>): Promise<void> {
  await sql`select pg_notify('threadlog_jobs', '')`.execute(database);
}

/** The kind of jobs that make a replay's deliveries. A job's key is the round of its replay. */
export const REPLAY_WEBHOOK = 'replay-webhook';

/** Replays of an organization that may wait or run at the same time: each may make tens of thousands of deliveries. */
export const MOST_REPLAYS = 10;
/** Deliveries that may wait for an endpoint when another replay of it is asked for. */
export const MOST_WAITING = 100_000;

/**
 * Has the deliveries of a replay made. An organization's replays run one after the other, so that they leave places to those of others.
 * @throws ThreadlogError limit_exceeded
 */
export async function addReplay(
  database: Kysely<Database>,
  organizationId: string,
  webhookId: string,
  round: string,
  replayed: object,
): Promise<void> {
  const lane = `${REPLAY_WEBHOOK} ${organizationId}`;
  const job = {
    kind: REPLAY_WEBHOOK,
    key: round,
    lane,
    organization_id: organizationId,
    payload: { webhookId, ...replayed },
    due_ms: 0,
  };
  const receiver = receiverOf({ organizationId, webhookId });
  await database.transaction().execute(async (tx) => {
    await sql`select keep.lock_lanes(array[${lane}])`.execute(tx);
    const { rows } = await sql<{ replays: number; deliveries: number }>`
      select
        (select count(*) from keep.jobs where lane = ${lane} and key <> ${round}) as replays,
        (select count(*) from (
          select from keep.jobs where kind = ${DELIVER_WEBHOOK} and receiver = ${receiver} limit ${sql.lit(MOST_WAITING + 1)}
        ) waiting) as deliveries`.execute(tx);
    const { replays = 0, deliveries = 0 } = rows[0] ?? {};
    if (replays >= MOST_REPLAYS)
      throw new ThreadlogError('limit_exceeded', `${MOST_REPLAYS} replays of the organization wait or run; ask again when one has ended`);
    if (deliveries > MOST_WAITING)
      throw new ThreadlogError('limit_exceeded', `more than ${MOST_WAITING} deliveries wait for this webhook; ask again when fewer do`);
    await sql`select keep.add_jobs(${JSON.stringify([job])}::jsonb, null)`.execute(tx);
  });
}
