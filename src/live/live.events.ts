import { Inject, Injectable } from '@nestjs/common';
import type { StateBefore } from '../commands/transactor.js';
import type { ConversationEvent } from '../conversations/conversation.js';
import { type PublicEvent, PublicEventsReader } from '../conversations/public-events.reader.js';
import { sealedDecoder } from '../event-decoding.js';
import type { Recorded } from '../event-store/aggregate.js';
import type { ProjectedEvent } from '../event-store/decoding.js';
import type { StoredEvent } from '../event-store/event-store.js';
import { knownError } from '../http/upgrades.js';
import { LOGGER, type Log } from '../log.js';
import { CallerPositions } from '../security/caller-positions.js';
import { LiveEvent } from './live-event.answer.js';
import type { Audience } from './live-frame.js';
import { LiveVisitors } from './live-visitors.reader.js';
import { LiveMetrics } from './live.metrics.js';

/** Conversations that are read, and frames that are made, at the same time. */
const AT_ONCE = 16;

/**
 * Makes live events of stored ones, and their frames. An event that cannot be read or told is left out, with a line in the log and a count
 * in the metrics, so that it holds up no other. While a store is away nothing is left out: the methods throw.
 */
@Injectable()
export class LiveEvents {
  constructor(
    @Inject(PublicEventsReader) private readonly reader: PublicEventsReader,
    @Inject(LiveVisitors) private readonly visitors: LiveVisitors,
    @Inject(CallerPositions) private readonly positions: CallerPositions,
    @Inject(LiveMetrics) private readonly metrics: LiveMetrics,
    @Inject(LOGGER) private readonly log: Log,
  ) {}

  /** As PublicEventsReader.prime(). */
  prime(before: StateBefore): void {
    this.reader.prime(before);
  }

  /** The same with a memory of its own (bytes), for whoever walks through the past beside the followers. */
  aside(cacheBytes: number): LiveEvents {
    return new LiveEvents(this.reader.aside(cacheBytes), this.visitors, this.positions, this.metrics, this.log);
  }

  /**
   * The live events of stored events of conversations, in the same order.
   * @throws ThreadlogError store_unavailable, or the error of the store that is away
   */
  async of(events: readonly StoredEvent[]): Promise<LiveEvent[]> {
    const { decoded, failed } = await sealedDecoder(events);
    const known = new Map(decoded.map((one) => [one.event.position, one]));
    for (const { event, error } of failed) this.#leaveOut(event, error);
    const streams = new Map<string, ProjectedEvent[]>();
    for (const { position, stream } of events) {
      const one = known.get(position);
      if (one === undefined) continue;
      const own = streams.get(stream);
      if (own === undefined) streams.set(stream, [one]);
      else own.push(one);
    }
    await this.#knowKeys(decoded);
    const made = new Map<string, readonly LiveEvent[]>();
    // The events of one conversation follow each other, so that each finds its state at hand.
    await eachOf([...streams.values()], async (own) => {
      for (const { organizationId, streamId, event } of own)
        await this.#unlessBad(event, async () => {
          const told = await this.reader.of({ organizationId, conversationId: streamId, event: event as Recorded<ConversationEvent> });
          made.set(
            event.position,
            told.map((one) => new LiveEvent(one)),
          );
        });
    });
    return events.flatMap(({ position }) => made.get(position) ?? []);
  }

  /** Makes frames of events of one organization. One that cannot be made is sent to nobody. @throws as of() */
  async make(wanted: readonly (readonly [LiveEvent, Audience])[]): Promise<void> {
    // Visitors are told nothing of themselves.
    const ids = new Set(wanted.filter(([, audience]) => audience !== 'visitors').map(([{ visitorId }]) => visitorId));
    const visitors = await this.visitors.find(wanted[0]?.[0].told.organizationId ?? '', ids);
    // A visitor whose stream is parked may not be in the table.
    const visitorOf = async (told: PublicEvent) => visitors.get(told.after.visitorId) ?? (await this.reader.visitor(told));
    const making = { positions: this.positions, visitorOf };
    await eachOf(wanted, async ([event, audience]) => {
      await this.#unlessBad(event.told.event, () => event.make(audience, making));
      if (!event.isMade(audience)) event.withhold(audience);
    });
  }

  async #knowKeys(events: readonly ProjectedEvent[]): Promise<void> {
    const organizations = new Map<string, Set<string>>();
    for (const { organizationId, event } of events) {
      const { keyId } = event.metadata;
      if (keyId === undefined) continue;
      organizations.set(organizationId, (organizations.get(organizationId) ?? new Set()).add(keyId));
    }
    for (const [organizationId, keyIds] of organizations)
      try {
        await this.reader.knowKeys(organizationId, keyIds);
      } catch (error) {
        // A damaged key is met again by the events that need it, and hurts no other.
        if (knownError(error).code === 'store_unavailable') throw error;
      }
  }

  async #unlessBad(event: Pick<StoredEvent, 'stream' | 'position' | 'type'>, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (knownError(error).code === 'store_unavailable') throw error;
      this.#leaveOut(event, error);
    }
  }

  #leaveOut({ stream, position, type }: Pick<StoredEvent, 'stream' | 'position' | 'type'>, error: unknown): void {
    this.metrics.leftOut();
    const why = error instanceof Error ? error.message : String(error);
    this.log.warn({ stream, position, type, error: why }, 'the live feed leaves out an event that it cannot read');
  }
}

/** Does something for each, a few at a time. */
async function eachOf<T>(all: readonly T[], work: (one: T) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    for (let one = all[next++]; one !== undefined; one = all[next++]) await work(one);
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, all.length) }, worker));
}
