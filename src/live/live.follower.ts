import { Inject, Injectable, type OnModuleDestroy } from '@nestjs/common';
import { Transactor } from '../commands/transactor.js';
import { parseStreamName, type Position, type StoredEvent, type StreamKind } from '../event-store/event-store.js';
import { LOGGER, type Log } from '../log.js';
import { nextTurn, pause } from '../pause.js';
import { includes, isAfter, type LiveCursor } from './live-cursor.js';
import { MOST_WAITING_BYTES } from './live-connection.js';
import type { LiveEvent } from './live-event.answer.js';
import { LiveEvents } from './live.events.js';
import { LiveFeed, type LivePart } from './live-feed.reader.js';
import type { Audience } from './live-frame.js';
import { LiveWire } from './live.wire.js';
import { type LiveMember, sendToAll } from './live-member.js';
import { Turns } from './turns.js';

/** How long the feeds wait for a notification before they look for themselves (ms). */
const POLL_MS = 250;
/** Feeds that are read and told at the same time. The others wait for their turn, so that what was read and not yet told stays bounded. */
const FEEDS_AT_ONCE = 64;
/** Bounds of what is remembered for clients that come back, in all organizations together. */
const REMEMBERED = { events: 1_000, bytes: 16_000_000, ms: 60_000 } as const;
/**
 * Events of an organization that are read again when its first socket comes, for clients that come back after a restart. New events wait
 * for them, so they are few.
 */
const READ_AGAIN = { events: 50, bytes: 250_000 } as const;
const BACKOFF = { first: 100, longest: 2_000 } as const;
/** Bytes that each reader is sent before it gets some time to take them, and that time (ms). */
const BYTES_AT_ONCE = MOST_WAITING_BYTES / 4;
const DRAIN_MS = 100;
/** How long frames are sent before other work of the process gets its turn (ms). */
const SLICE_MS = 20;
/** Events whose frames are made together. */
const MADE_AT_ONCE = 16;

/** The feed of one organization that has sockets in this process. */
export class OrganizationFeed {
  readonly members = new Set<LiveMember>();
  /** Audiences of sockets that are about to join. Frames are made for them, so that they find every frame ready. */
  readonly joining = new Map<LiveMember, Audience>();
  /** Every event after `start` and up to `cursor` is here. */
  readonly recent: LiveEvent[] = [];
  /** Sockets, joined or not, that use the feed. */
  users = 0;

  /** How far the feed has got. */
  cursor: LiveCursor;
  /** Resolves when the feed has read everything that was there when it was opened. */
  readonly caughtUp: Promise<void>;
  #catchUp: () => void = () => {};

  constructor(
    readonly organizationId: string,
    public start: Position | 'start',
  ) {
    this.cursor = { position: start, told: Infinity };
    this.caughtUp = new Promise((resolve) => (this.#catchUp = resolve));
  }

  hasCaughtUp(): void {
    this.#catchUp();
  }

  /** Waits until every reader has taken most of what it was sent, or has had some time for it. */
  async drained(): Promise<void> {
    const until = performance.now() + DRAIN_MS;
    const waits = () => [...this.members].some(({ connection }) => connection.waiting > BYTES_AT_ONCE);
    do await new Promise((resolve) => setTimeout(resolve, 1));
    while (waits() && performance.now() < until);
  }

  /** The events that a client lacks; undefined when the feed no longer remembers them all. */
  since(cursor: LiveCursor): LiveEvent[] | undefined {
    if (!includes(cursor, this.start)) return undefined;
    let first = this.recent.length;
    for (; first > 0; first--) {
      const event = this.recent[first - 1];
      if (event !== undefined && !isAfter(cursor, event.position, event.told.index)) break;
    }
    return this.recent.slice(first);
  }

  /** Those who get an event. Visitors get what is theirs, all others what they asked for. */
  *receivers(event: LiveEvent): Generator<LiveMember> {
    for (const member of this.members) if (member.wants(event)) yield member;
  }
}

interface Remembered {
  readonly feed: OrganizationFeed;
  readonly event: LiveEvent;
  /** The size of its stored event. */
  readonly bytes: number;
  /** performance.now() */
  readonly at: number;
}

/**
 * Follows the events of the organizations that have sockets in this process, and hands each to those who want it, in order. It keeps no
 * checkpoint and no lease: the table is the same for every process, and a client says itself how far it has got. Each organization is
 * followed by a loop of its own, so that no organization waits for another; loops that look at the same moment share one query.
 */
@Injectable()
export class LiveFollower implements OnModuleDestroy {
  readonly #feeds = new Map<string, Promise<OrganizationFeed>>();
  readonly #open = new Map<string, OrganizationFeed>();
  #remembered: Remembered[] = [];
  #rememberedBytes = 0;
  readonly #loops = new Set<Promise<void>>();
  readonly #turns = new Turns(FEEDS_AT_ONCE);
  readonly #stopping = new AbortController();
  #asking = new Set<OrganizationFeed>();
  #answer: Promise<ReadonlyMap<OrganizationFeed, LivePart>> | undefined;
  /** How often the feeds were woken, and those that wait for the next time. */
  #wakes = 0;
  #waiting: (() => void)[] = [];
  #poll: NodeJS.Timeout | undefined;
  /** Called when a visitor's tokens may have ended, or an agent was archived. */
  onEnded: (organizationId: string, kind: StreamKind, id: string) => void = () => undefined;
  /** Called after an event was told. */
  onTold: (event: LiveEvent) => void = () => undefined;

  constructor(
    @Inject(LiveFeed) private readonly feed: LiveFeed,
    @Inject(LiveEvents) private readonly events: LiveEvents,
    @Inject(LiveWire) wire: LiveWire,
    @Inject(Transactor) transactor: Transactor,
    @Inject(LOGGER) private readonly log: Log,
  ) {
    wire.onFeed(() => this.wake());
    transactor.onAppended = (before) => {
      if (this.#open.has(before.organizationId)) this.events.prime(before);
    };
  }

  /** Begins to use the feed of an organization; leave() ends it. @throws the database's error */
  async enter(organizationId: string): Promise<OrganizationFeed> {
    let opening = this.#feeds.get(organizationId);
    if (opening === undefined) {
      opening = this.#openFeed(organizationId);
      this.#feeds.set(organizationId, opening);
    }
    const feed = await opening;
    if (this.#feeds.get(organizationId) !== opening) return await this.enter(organizationId);
    feed.users++;
    return feed;
  }

  leave(feed: OrganizationFeed): void {
    feed.users--;
    if (feed.users > 0) return;
    this.#feeds.delete(feed.organizationId);
    this.#open.delete(feed.organizationId);
    this.#remembered = this.#remembered.filter((one) => one.feed !== feed);
    this.#rememberedBytes = this.#remembered.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** There may be new events. */
  wake(): void {
    this.#wakes++;
    for (const go of this.#waiting.splice(0)) go();
  }

  async onModuleDestroy(): Promise<void> {
    this.#stopping.abort();
    clearInterval(this.#poll);
    this.wake();
    await Promise.all(this.#loops);
  }

  async #openFeed(organizationId: string): Promise<OrganizationFeed> {
    try {
      const feed = new OrganizationFeed(organizationId, await this.feed.before(organizationId, READ_AGAIN));
      this.#open.set(organizationId, feed);
      this.#poll ??= setInterval(() => this.#look(), POLL_MS).unref();
      const loop = this.#follow(feed).finally(() => this.#loops.delete(loop));
      this.#loops.add(loop);
      return feed;
    } catch (error) {
      this.#feeds.delete(organizationId);
      throw error;
    }
  }

  /** A feed that was closed is never opened again: whoever comes later opens another one. */
  #isOpen(feed: OrganizationFeed): boolean {
    return !this.#stopping.signal.aborted && this.#open.get(feed.organizationId) === feed;
  }

  #look(): void {
    this.#forgetOld();
    this.wake();
    if (this.#open.size > 0) return;
    clearInterval(this.#poll);
    this.#poll = undefined;
  }

  /** Reads and tells the events of a feed until it is closed. */
  async #follow(feed: OrganizationFeed): Promise<void> {
    let backoff: number = BACKOFF.first;
    while (this.#isOpen(feed)) {
      const wakes = this.#wakes;
      try {
        const more = await this.#turns.take(() => this.#readAndTell(feed));
        backoff = BACKOFF.first;
        if (more) continue;
        feed.hasCaughtUp();
        if (this.#wakes === wakes) await new Promise<void>((resolve) => this.#waiting.push(resolve));
      } catch (error) {
        await this.#rest(backoff, error, feed.organizationId);
        backoff = Math.min(2 * backoff, BACKOFF.longest);
      }
    }
  }

  async #rest(ms: number, error: unknown, organizationId?: string): Promise<void> {
    const why = error instanceof Error ? error.message : String(error);
    this.log.warn({ error: why, againInMs: ms, ...(organizationId === undefined ? {} : { organizationId }) }, 'live feed interrupted');
    await pause(ms, this.#stopping.signal);
  }

  /** Answers whether there is more already. @throws the error of the store that is away */
  async #readAndTell(feed: OrganizationFeed): Promise<boolean> {
    const part = await this.#next(feed);
    if (part === undefined || !this.#isOpen(feed)) return false;
    await this.#tell(part, feed);
    return part.more;
  }

  /** The feed's next part. All who ask in one turn of the event loop share one query. */
  async #next(feed: OrganizationFeed): Promise<LivePart | undefined> {
    this.#asking.add(feed);
    this.#answer ??= nextTurn().then(() => {
      const feeds = this.#asking;
      this.#asking = new Set();
      this.#answer = undefined;
      return this.#read(feeds);
    });
    return (await this.#answer).get(feed);
  }

  /** Reads until it succeeds, since an error of this query is the error of all feeds. */
  async #read(feeds: ReadonlySet<OrganizationFeed>): Promise<ReadonlyMap<OrganizationFeed, LivePart>> {
    for (let backoff: number = BACKOFF.first; ; backoff = Math.min(2 * backoff, BACKOFF.longest)) {
      const open = new Map([...feeds].filter((feed) => this.#isOpen(feed)).map((feed) => [feed.organizationId, feed]));
      if (open.size === 0) return new Map();
      try {
        const parts = new Map<OrganizationFeed, LivePart>();
        for (const part of await this.feed.next([...open.values()])) {
          const feed = open.get(part.organizationId);
          if (feed !== undefined) parts.set(feed, part);
        }
        return parts;
      } catch (error) {
        await this.#rest(backoff, error);
      }
    }
  }

  async #tell({ organizationId, events, through }: LivePart, feed: OrganizationFeed): Promise<void> {
    const ofConversations: StoredEvent[] = [];
    for (const stored of events) {
      const name = parseStreamName(stored.stream);
      if (name?.kind === 'conversation') ofConversations.push(stored);
      // Before anything is told, since a part that fails in the middle is read again from there only.
      else if (name !== undefined) this.onEnded(organizationId, name.kind, name.id);
    }
    const bytes = new Map(ofConversations.map(({ position, data }) => [position, data.length]));
    const told = (await this.events.of(ofConversations)).filter(({ position, told: { index } }) => isAfter(feed.cursor, position, index));
    let began = performance.now();
    const breathe = async () => {
      if (performance.now() - began < SLICE_MS) return;
      await nextTurn();
      began = performance.now();
    };
    let sent = 0;
    for (const [i, event] of told.entries()) {
      if (!this.#isOpen(feed)) return;
      while (missingFrames(feed, [event]).length > 0) await this.events.make(missingFrames(feed, told.slice(i, i + MADE_AT_ONCE)));
      // From the last look at who wants the event until it is remembered nothing is awaited: whoever joins is either among the receivers, or
      // finds the event in what is remembered.
      const receivers = [...feed.receivers(event)];
      this.#remember({ feed, event, bytes: bytes.get(event.position) ?? 0, at: performance.now() });
      feed.cursor = { position: event.position, told: event.told.index + 1 };
      await sendToAll(receivers, event, breathe);
      this.onTold(event);
      // Many events at once, as after a standstill, must not make good readers look like slow ones.
      if ((sent += event.bytes) > BYTES_AT_ONCE) {
        sent = 0;
        await feed.drained();
      } else await breathe();
    }
    feed.cursor = { position: through, told: Infinity };
  }

  #remember(one: Remembered): void {
    one.feed.recent.push(one.event);
    this.#remembered.push(one);
    this.#rememberedBytes += one.bytes;
    if (this.#remembered.length > 2 * REMEMBERED.events || this.#rememberedBytes > REMEMBERED.bytes) this.#forgetOld();
  }

  #forgetOld(): void {
    const { events, bytes, ms } = REMEMBERED;
    const oldest = performance.now() - ms;
    let gone = 0;
    for (const { feed, event, bytes: own, at } of this.#remembered) {
      if (this.#remembered.length - gone <= events && this.#rememberedBytes <= bytes && at >= oldest) break;
      gone++;
      this.#rememberedBytes -= own;
      feed.recent.shift();
      feed.start = event.position;
    }
    if (gone > 0) this.#remembered = this.#remembered.slice(gone);
  }
}

/** The frames of events that somebody wants now, or that somebody who joins may want, and that are not made yet. */
function missingFrames(feed: OrganizationFeed, events: readonly LiveEvent[]): [LiveEvent, Audience][] {
  const joining = new Set(feed.joining.values());
  return events.flatMap((event) => {
    const audiences = new Set(joining);
    for (const member of feed.members) if (!audiences.has(member.audience) && member.wants(event)) audiences.add(member.audience);
    return [...audiences].filter((audience) => !event.isMade(audience)).map((audience): [LiveEvent, Audience] => [event, audience]);
  });
}
