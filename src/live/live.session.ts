import { parseStreamName } from '../event-store/event-store.js';
import { pause } from '../pause.js';
import type { CallerPositions } from '../security/caller-positions.js';
import { isAfter, type LiveCursor } from './live-cursor.js';
import { type CloseCode, type LiveConnection, MOST_WAITING_BYTES } from './live-connection.js';
import type { LiveEvent } from './live-event.answer.js';
import type { LiveEvents } from './live.events.js';
import type { LiveFeed } from './live-feed.reader.js';
import { type LiveFilter, matches, type Placed } from './live-filter.js';
import { type Audience, LiveFrame } from './live-frame.js';
import type { LiveMember } from './live-member.js';
import type { LiveMetrics } from './live.metrics.js';
import type { LiveCaller, LiveWish } from './live.authentication.js';
import type { LiveFollower, OrganizationFeed } from './live.follower.js';
import type { Turns } from './turns.js';

/** The most frames that are prepared at once for a socket that catches up. */
const AT_ONCE = 100;
/** Frames of the past that are made before they are sent. */
const MADE_AT_ONCE = 8;
/** Bytes that a socket that catches up is sent at once, before it is waited for: far less than what cuts it off. */
const BYTES_AT_ONCE = MOST_WAITING_BYTES / 4;
/** How long a socket that catches up waits before it looks again for rows that a crash of PostgreSQL has taken from the table (ms). */
const MISSING_MS = 200;
/** The memory for the states of conversations during a replay (bytes). */
const REPLAY_BYTES = 1024 * 1024;

/** What a session needs of the process. */
export interface LiveSurroundings {
  readonly follower: LiveFollower;
  readonly feed: LiveFeed;
  readonly events: LiveEvents;
  readonly metrics: LiveMetrics;
  readonly positions: CallerPositions;
  /** Replays take turns at reading, so that a thousand of them cost no more than a few. */
  readonly turns: Turns;
}

/** One socket of a caller: first it gets what it missed, then what comes. */
export class LiveSession implements LiveMember {
  readonly audience: Audience;
  readonly filter: LiveFilter;
  /** The same for all sockets that end together. */
  readonly holder: string;
  #cursor: LiveCursor;
  readonly #hasPast: boolean;
  #feed: OrganizationFeed | undefined;
  #ended = false;

  /** @param head the end of the log, from which on a session without `since` is told */
  constructor(
    readonly connection: LiveConnection,
    readonly caller: LiveCaller,
    { filter, since }: LiveWish,
    head: LiveCursor,
    private readonly surroundings: LiveSurroundings,
  ) {
    this.filter = filter;
    this.#cursor = since ?? head;
    this.#hasPast = since !== undefined;
    const { organizationId, keyId, visitorId, tokenGeneration, expiresAt, role } = caller.principal;
    this.holder = JSON.stringify([organizationId, keyId, visitorId, tokenGeneration, expiresAt, caller.agentId]);
    this.audience = role === 'visitor' ? 'visitors' : role === 'analyst' ? 'analysts' : 'team';
  }

  get organizationId(): string {
    return this.caller.principal.organizationId;
  }

  /** Whether the socket may see something of a conversation, and wants this type. @param places where it is, and was */
  sees(type: string, conversationId: string, visitorId: string, places: readonly Placed[]): boolean {
    return (
      (this.audience !== 'visitors' || this.caller.principal.visitorId === visitorId) && matches(this.filter, type, conversationId, places)
    );
  }

  wants({ told, conversationId, visitorId, places }: LiveEvent): boolean {
    return isAfter(this.#cursor, told.event.position, told.index) && this.sees(told.type, conversationId, visitorId, places);
  }

  /**
   * Sends `ready` and what was missed, and joins those who are told at once. Returns when it has joined, or the connection is gone.
   * @throws the error of a store that is away
   */
  async run(): Promise<void> {
    const { follower, positions } = this.surroundings;
    const { position, told } = this.#cursor;
    const from = told === Infinity ? position : `${position}.${told}`;
    this.connection.send(new LiveFrame({ type: 'ready', position: positions.moment(this.caller.principal, from) }));
    const feed = await follower.enter(this.organizationId);
    if (this.#ended) return follower.leave(feed);
    this.#feed = feed;
    feed.joining.set(this, this.audience);
    try {
      await this.#catchUp(feed);
    } finally {
      feed.joining.delete(this);
    }
  }

  /** The connection is gone, or is to go. */
  leave(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#feed === undefined) return;
    this.#feed.members.delete(this);
    this.surroundings.follower.leave(this.#feed);
  }

  end(code: CloseCode, reason?: string): void {
    this.leave();
    this.connection.end(code, reason);
  }

  async #catchUp(feed: OrganizationFeed): Promise<void> {
    const { events } = this.surroundings;
    let past: LiveEvents | undefined;
    // A feed that was opened just now still reads what was there before. Whoever joined it now would be sent all that as if it were new.
    if (this.#hasPast) await feed.caughtUp;
    while (!this.#ended) {
      const recent = feed.since(this.#cursor)?.filter((event) => this.wants(event));
      if (recent === undefined) {
        await this.#replayPart((past ??= events.aside(REPLAY_BYTES)));
        continue;
      }
      const next = recent.slice(0, AT_ONCE);
      const missing = next.filter((event) => !event.isMade(this.audience));
      if (missing.length > 0) {
        await events.make(missing.map((event) => [event, this.audience]));
        continue;
      }
      const bytes = next.reduce((sum, event) => sum + (event.frame(this.audience)?.size ?? 0), 0);
      if (next.length < recent.length || bytes > BYTES_AT_ONCE) {
        await this.#sendInTurn(next);
        continue;
      }
      // Nothing is awaited between this look at the feed and the joining, so that no event comes in between.
      for (const event of next) this.#send(event);
      feed.members.add(this);
      return;
    }
  }

  /** Reads and sends the next part of the past. */
  async #replayPart(past: LiveEvents): Promise<void> {
    const { turns, feed: table, metrics } = this.surroundings;
    const { organizationId, filter, caller } = this;
    const made = await turns.take(async () => {
      const [part] = await table.next([{ organizationId, cursor: this.#cursor }], {
        conversationIds: filter.conversationId,
        visitorId: caller.principal.visitorId ?? undefined,
      });
      if (part === undefined) return undefined;
      const stored = part.events.filter(({ stream }) => parseStreamName(stream)?.kind === 'conversation');
      return { events: (await past.of(stored)).filter((event) => this.wants(event)), through: part.through };
    });
    if (this.#ended) return;
    // This process has already told later events of the table, so there were more rows. A crash of PostgreSQL can take the last rows of a
    // read model; the projection writes them again.
    if (made === undefined) return await pause(MISSING_MS);
    metrics.replayed(made.events.length);
    // A frame may be a thousand times as large as its event, so few are made at a time.
    for (let first = 0; first < made.events.length && !this.#ended; first += MADE_AT_ONCE) {
      const next = made.events.slice(first, first + MADE_AT_ONCE);
      await past.make(next.map((event) => [event, this.audience]));
      await this.#sendInTurn(next);
    }
    this.#cursor = { position: made.through, told: Infinity };
  }

  /** Sends no faster than the client reads. */
  async #sendInTurn(events: readonly LiveEvent[]): Promise<void> {
    for (const event of events) {
      if (this.#ended) return;
      this.#send(event);
      if (this.connection.waiting > BYTES_AT_ONCE) await this.connection.flushed();
    }
  }

  #send(event: LiveEvent): void {
    const frame = event.frame(this.audience);
    if (frame !== undefined) this.connection.send(frame);
    this.#cursor = { position: event.position, told: event.told.index + 1 };
  }
}
