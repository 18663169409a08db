import { IsOptional } from 'class-validator';
import { z } from 'zod';
import type { DomainEvent, Recorded } from '../event-store/aggregate.js';
import { type EventStore, type Position, StoreUnavailable, streamName } from '../event-store/event-store.js';
import { LogVerification } from '../event-store/log-verification.js';
import type { Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import { storeUnavailable } from '../store-away.js';
import { Answered, dataAnswer } from '../http/answered.js';
import { IsMatching, Limit, limited } from '../http/validation.js';
import type { DataKey } from '../security/sealing.js';
import type { VisitorKeys } from '../security/visitor-keys.js';
import type { AuditedResource, HistoryCaller } from './audited-resource.js';
import { changesBetween } from './changes.js';

/** Most events in one page of a resource's history. */
export const EVENTS_SHOWN = 1_000;

/** An event for auditors. Personal fields are unsealed for callers who may read them. */
export const eventSchema = z
  .strictObject({
    id: z.string(),
    type: z.string(),
    revision: z.number().int(),
    position: z.string(),
    occurredAt: z.iso.datetime({ precision: 3 }),
    actor: z.strictObject({ type: z.enum(['agent', 'apiKey', 'visitor', 'automation', 'system']), id: z.string() }),
    commandId: z.string(),
    correlationId: z.string(),
    causationId: z.string(),
    causationDepth: z.number().int(),
    imported: z.boolean(),
    hash: z.string(),
    data: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'Event' });
export type EventAnswer = z.infer<typeof eventSchema>;

/** @param event with its personal fields unsealed */
export function eventAnswer(event: Recorded<DomainEvent>): EventAnswer {
  const { actor, occurredAt, commandId, correlationId, causationId, causationDepth, imported, hash } = event.metadata;
  return {
    id: event.id,
    type: event.type,
    revision: event.revision,
    position: event.position,
    occurredAt,
    actor: { type: actor.type, id: actor.id },
    commandId,
    correlationId,
    causationId,
    causationDepth,
    imported: imported === true,
    hash,
    data: { ...event.data },
  };
}

/** `?from=` and `?limit=` of a history. */
export class EventsQueryDto {
  /** The revision to begin with. */
  @IsOptional() @IsMatching(/^(0|[1-9]\d{0,8})$/, 'must be a whole number from 0', { type: 'integer', minimum: 0 }) from?: string;
  @IsOptional() @Limit(EVENTS_SHOWN) limit?: string;

  start(): number {
    return Number(this.from ?? 0);
  }
  size(): number {
    return limited(this.limit, EVENTS_SHOWN, EVENTS_SHOWN);
  }
}

export interface HistoryPage {
  readonly data: EventAnswer[];
  readonly meta: { readonly limit: number; readonly hasMore: boolean };
}

const IsRevision = () =>
  IsMatching(/^(-1|0|[1-9]\d{0,8})$/, 'must be a revision: a whole number from -1', { type: 'integer', minimum: -1 });

/** `?from=`, `?to=` and `?limit=` of a comparison. */
export class DiffQueryDto {
  /** The earlier revision: the state after this event. -1, the default, is the state before the first event, which has no field. */
  @IsOptional() @IsRevision() from?: string;
  /** The later revision, by default the latest; not below `from`. */
  @IsOptional() @IsRevision() to?: string;
  /** The most events of the answer. */
  @IsOptional() @Limit(EVENTS_SHOWN) limit?: string;
}

/** The comparison of two revisions of a resource. */
export const diffSchema = z
  .strictObject({
    from: z.number().int().describe('The earlier revision; -1 is before the first event.'),
    to: z.number().int().describe('The later revision.'),
    events: z.array(eventSchema).describe('The events after from, up to and with to, oldest first.'),
    changes: z
      .array(
        z.strictObject({
          field: z.string().describe('A path in the answer of the resource, such as assignee.name or customAttributes.plan.'),
          before: z.unknown().describe('Null when the field was not there.'),
          after: z.unknown().describe('Null when the field is not there.'),
        }),
      )
      .describe('Every field of the answer that differs, save revision; a list is compared as a whole.'),
  })
  .meta({ id: 'Diff' });
export const diffAnswerSchema = z.strictObject({
  data: diffSchema,
  meta: z.strictObject({
    limit: z.number().int(),
    hasMore: z.boolean().describe('Whether there are more events between the two revisions; changes always covers all of them.'),
  }),
});
export type DiffAnswer = z.infer<typeof diffAnswerSchema>;

/** What the chain of one stream proves. */
export const verificationSchema = z
  .strictObject({
    ok: z.boolean(),
    stream: z.string().describe('The name of the stream, as threadlog verify --stream takes it.'),
    events: z.number().int().describe('How many events the stream has.'),
    revision: z.number().int().describe('The last event that is proved, and all before it; -1 when not even the first one is.'),
    hash: z.string().nullable().describe('The hash of that event: it stands for the event and all before it.'),
    position: z.string().nullable(),
    firstBad: z
      .strictObject({ revision: z.number().int(), eventId: z.string(), position: z.string(), why: z.string() })
      .nullable()
      .describe('The first event that is not as it was written; those after it cannot be judged.'),
  })
  .meta({ id: 'Verification' });
export type VerificationAnswer = z.infer<typeof verificationSchema>;

interface Known {
  readonly state: unknown;
  readonly revision: number;
  readonly position: Position;
}

/** Reads the past of one resource directly from its stream, so that it is never behind. */
export class HistoryReader {
  constructor(
    private readonly store: EventStore,
    private readonly transactor: Transactor,
    private readonly keys: VisitorKeys,
  ) {}

  /**
   * A page of a history, with X-Position of the stream's last event.
   * @throws ThreadlogError not_found, store_unavailable
   */
  async page(
    resource: AuditedResource,
    by: HistoryCaller,
    organizationId: string,
    id: string,
    query: EventsQueryDto,
  ): Promise<Answered<HistoryPage>> {
    const limit = query.size();
    const read: Recorded<DomainEvent>[] = [];
    const range = { from: query.start(), limit: limit + 1 };
    for await (const event of this.transactor.history(resource.aggregate, organizationId, id, range)) read.push(event);
    // Loaded after the events, so that a stream that has events always exists here.
    const known = await this.#known(resource, by, organizationId, id);
    const data = await this.#told(resource, organizationId, read.slice(0, limit));
    return new Answered({ data, meta: { limit, hasMore: read.length > limit } }, { position: known.position });
  }

  /**
   * The comparison of two revisions.
   * @throws ThreadlogError not_found, validation_failed for a revision that the resource does not have, store_unavailable
   */
  async diff(
    resource: AuditedResource,
    by: HistoryCaller,
    organizationId: string,
    id: string,
    query: DiffQueryDto,
  ): Promise<Answered<DiffAnswer>> {
    const known = await this.#known(resource, by, organizationId, id);
    const { from, to } = rangeOf(query, known.revision);
    const limit = limited(query.limit, EVENTS_SHOWN, EVENTS_SHOWN);
    const { aggregate } = resource;
    const between: Recorded<DomainEvent>[] = [];
    let state = aggregate.initial;
    let before: unknown;
    let keyId: string | undefined;
    if (to >= 0)
      for await (const event of this.transactor.history(aggregate, organizationId, id, { to })) {
        state = aggregate.evolve(state, event);
        keyId ??= event.metadata.keyId;
        if (event.revision === from) before = state;
        if (event.revision > from && between.length <= limit) between.push(event);
      }
    const key = keyId === undefined ? undefined : await this.keys.find(organizationId, keyId);
    const answerAt = async (revision: number, then: unknown): Promise<object> => {
      if (revision < 0) return {};
      const answer = await resource.answer({ organizationId, id, state: then, revision, key }, this.transactor);
      // from and to are the revisions.
      return Object.fromEntries(Object.entries(answer).filter(([name]) => name !== 'revision'));
    };
    const changes = changesBetween(await answerAt(from, before), await answerAt(to, state));
    const events = await this.#told(resource, organizationId, between.slice(0, limit));
    return new Answered(
      { data: { from, to, events, changes }, meta: { limit, hasMore: between.length > limit } },
      { position: known.position },
    );
  }

  /**
   * Checks the chain of the stream, in memory that does not grow with it.
   * @throws ThreadlogError not_found, store_unavailable
   */
  async verify(
    resource: AuditedResource,
    by: HistoryCaller,
    organizationId: string,
    id: string,
  ): Promise<Answered<{ data: VerificationAnswer }>> {
    await this.#assertSeen(resource, by, organizationId, id);
    const stream = streamName(resource.aggregate.kind, organizationId, id);
    const verification = new LogVerification();
    let last: Position | undefined;
    let proved: { revision: number; hash: string; position: Position } | undefined;
    try {
      for await (const batch of this.store.read(stream))
        for (const event of batch) {
          verification.take(event);
          last = event.position;
          const hash = verification.provedHash(stream);
          if (hash !== undefined) proved = { revision: event.revision, hash, position: event.position };
        }
    } catch (error) {
      throw error instanceof StoreUnavailable ? storeUnavailable(error) : error;
    }
    if (last === undefined) throw new ThreadlogError('not_found');
    const [bad] = verification.bad;
    const data: VerificationAnswer = {
      ok: bad === undefined,
      stream,
      events: verification.events,
      revision: proved?.revision ?? -1,
      hash: proved?.hash ?? null,
      position: proved?.position ?? null,
      firstBad: bad === undefined ? null : { revision: bad.revision, eventId: bad.eventId, position: bad.position, why: bad.why },
    };
    return dataAnswer({ revision: data.revision, position: last }, data);
  }

  async #known(resource: AuditedResource, by: HistoryCaller, organizationId: string, id: string): Promise<Known> {
    const known = await this.transactor.load(resource.aggregate, organizationId, id);
    if (known === undefined || resource.shows?.(known.state, by) === false) throw new ThreadlogError('not_found');
    return known;
  }

  /** Like #known(), also for a stream that no build can read any more because somebody changed it: then as far as it can be read. */
  async #assertSeen(resource: AuditedResource, by: HistoryCaller, organizationId: string, id: string): Promise<void> {
    const { aggregate, shows } = resource;
    try {
      await this.#known(resource, by, organizationId, id);
    } catch (error) {
      if (error instanceof ThreadlogError && error.code !== 'internal_error') throw error;
      if (shows === undefined) return;
      let state = aggregate.initial;
      try {
        for await (const event of this.transactor.history(aggregate, organizationId, id)) state = aggregate.evolve(state, event);
      } catch (unreadable) {
        if (unreadable instanceof ThreadlogError && unreadable.code !== 'internal_error') throw unreadable;
      }
      if (!shows(state, by)) throw new ThreadlogError('not_found');
    }
  }

  async #told({ unseal }: AuditedResource, organizationId: string, events: readonly Recorded<DomainEvent>[]): Promise<EventAnswer[]> {
    const keyIds = events.flatMap(({ metadata: { keyId } }) => (keyId === undefined ? [] : [keyId]));
    const found: ReadonlyMap<string, DataKey> =
      keyIds.length === 0 || unseal === undefined ? new Map() : await this.keys.findMany(organizationId, keyIds);
    return events.map((event) => {
      const { keyId } = event.metadata;
      return eventAnswer(unseal === undefined ? event : unseal(event, keyId === undefined ? undefined : found.get(keyId)));
    });
  }
}

/** @throws ThreadlogError validation_failed */
function rangeOf(query: DiffQueryDto, latest: number): { from: number; to: number } {
  const refuse = (field: string, message: string) => {
    throw new ThreadlogError('validation_failed', undefined, { errors: [{ field, message }] });
  };
  const [from, to] = [Number(query.from ?? -1), Number(query.to ?? latest)];
  for (const [field, revision] of [
    ['from', from],
    ['to', to],
  ] as const)
    if (revision > latest) refuse(field, `is a revision that was not reached: the latest is ${latest}`);
  if (from > to) refuse('from', `must not be above to, which is ${to}`);
  return { from, to };
}
