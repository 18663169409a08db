import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import type { Position } from '../event-store/event-store.js';
import { StreamPlaces } from '../http/stream-places.js';
import { EventsFeed, type FeedEvent } from './event-feed.reader.js';

/** Exports of one organization that run at once in this process. */
export const EXPORTS_AT_ONCE = 4;
/** Events that are read at once: the memory that an export takes, a few megabytes where every message is as long as it may be. */
const PAGE = 100;

/** The last line of an export. An export without it was cut, and goes on after the last event's position. */
export interface ExportEnd {
  readonly meta: {
    readonly events: number;
    /** For the next export: where this one ended, which with `types` is beyond its last event. */
    readonly next: Position | 'start';
  };
}

/** Long answers of the feed: all of it up to where it ended when the export began. */
@Injectable()
export class FeedExports implements BeforeApplicationShutdown {
  readonly #places = new StreamPlaces({
    each: { most: EXPORTS_AT_ONCE, full: `this organization has ${EXPORTS_AT_ONCE} exports running` },
  });

  constructor(@Inject(EventsFeed) private readonly feed: EventsFeed) {}

  /** How many exports run now. */
  get running(): number {
    return this.#places.running;
  }

  /**
   * The events after a position, oldest first, in pages that are read when they are asked for.
   * @param cut ends the connection to a client that stopped reading
   * @throws ThreadlogError rate_limited, validation_failed for a position beyond the end of the log
   */
  rows(
    organizationId: string,
    after: Position | 'start',
    types: readonly string[] | undefined,
    cut: () => void,
  ): AsyncGenerator<readonly (FeedEvent | ExportEnd)[], void, undefined> {
    return this.#places.hold(organizationId, cut, this.#pages(organizationId, after, types));
  }

  async *#pages(
    organizationId: string,
    after: Position | 'start',
    types: readonly string[] | undefined,
  ): AsyncGenerator<readonly (FeedEvent | ExportEnd)[], void, undefined> {
    const end = await this.feed.head(organizationId);
    let at = after;
    let events = 0;
    for (let more = true; more;) {
      const { data, meta } = await this.feed.page(organizationId, at, { limit: PAGE, types, ...(end === 'start' ? {} : { until: end }) });
      at = meta.next as Position | 'start';
      more = meta.hasMore;
      events += data.length;
      yield data;
    }
    yield [{ meta: { events, next: end !== 'start' && (at === 'start' || at < end) ? end : at } }];
  }

  /** An export that is cut goes on elsewhere, after its last line. */
  beforeApplicationShutdown(): void {
    this.#places.cutAll();
  }
}
