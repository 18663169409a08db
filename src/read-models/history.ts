import { IsOptional } from 'class-validator';
import { z } from 'zod';
import type { Aggregate, DomainEvent, Recorded } from '../event-store/aggregate.js';
import type { Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import type { DataKey } from '../security/sealing.js';
import { Answered } from '../http/answered.js';
import { IsMatching, Limit, limited } from '../http/validation.js';
import type { VisitorKeys } from '../security/visitor-keys.js';

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
  @IsOptional() @IsMatching(/^(0|[1-9]\d{0,8})$/, 'must be a whole number from 0') from?: string;
  @IsOptional() @Limit(EVENTS_SHOWN) limit?: string;

  start(): number {
    return Number(this.from ?? 0);
  }
  size(): number {
    return limited(this.limit, EVENTS_SHOWN, EVENTS_SHOWN);
  }
}

/** How one kind of resource is read from its stream. */
export interface ResourceStream<S, E extends DomainEvent> {
  readonly aggregate: Aggregate<S, E>;
  /** False when the stream holds another kind of resource, such as a team under the path of agents. */
  readonly shows?: (state: S) => boolean;
  /** Unseals the personal fields; absent where no field is sealed. The key is undefined once it was destroyed. */
  readonly unseal?: (event: Recorded<E>, key: DataKey | undefined) => Recorded<DomainEvent>;
}

export interface HistoryPage {
  readonly data: EventAnswer[];
  readonly meta: { readonly limit: number; readonly hasMore: boolean };
}

/** Reads the events of one resource, oldest first, directly from its stream, so that the history is never behind. */
export class HistoryReader {
  constructor(
    private readonly transactor: Transactor,
    private readonly keys: VisitorKeys,
  ) {}

  /**
   * A page of a history, with X-Position of the stream's last event.
   * @throws ThreadlogError not_found
   */
  async page<S, E extends DomainEvent>(
    history: ResourceStream<S, E>,
    organizationId: string,
    id: string,
    query: EventsQueryDto,
  ): Promise<Answered<HistoryPage>> {
    const { aggregate, shows, unseal } = history;
    const limit = query.size();
    const read: Recorded<E>[] = [];
    for await (const event of this.transactor.history(aggregate, organizationId, id, { from: query.start(), limit: limit + 1 }))
      read.push(event);
    // Loaded after the events, so that a stream that has events always exists here.
    const known = await this.transactor.load(aggregate, organizationId, id);
    if (known === undefined || shows?.(known.state) === false) throw new ThreadlogError('not_found');
    const page = read.slice(0, limit);
    const keyIds = page.flatMap(({ metadata: { keyId } }) => (keyId === undefined ? [] : [keyId]));
    const found = keyIds.length === 0 || unseal === undefined ? undefined : await this.keys.findMany(organizationId, keyIds);
    const shown = {
      data: page.map((event) => {
        const { keyId } = event.metadata;
        return eventAnswer(unseal === undefined ? event : unseal(event, keyId === undefined ? undefined : found?.get(keyId)));
      }),
      meta: { limit, hasMore: read.length > limit },
    };
    return new Answered(shown, { position: known.position });
  }
}
