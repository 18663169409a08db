import { Inject, Injectable, type OnModuleDestroy } from '@nestjs/common';
import { CLOCK, type Clock } from '../clock.js';
import { type ErrorCode, ThreadlogError } from '../errors.js';
import { knownError } from '../http/upgrades.js';
import { type Log, LOGGER } from '../log.js';
import { CallerPositions } from '../security/caller-positions.js';
import type { CloseCode, LiveConnection } from './live-connection.js';
import { LiveAuthentication, type LiveCaller, type LiveWish } from './live.authentication.js';
import { LiveEvents } from './live.events.js';
import { LiveFeed } from './live-feed.reader.js';
import { LiveFollower } from './live.follower.js';
import { liveMessageOf } from './live-message.js';
import { LivePresence } from './live.presence.js';
import { LiveFrame } from './live-frame.js';
import { Allowances } from './allowances.js';
import { LiveMetrics } from './live.metrics.js';
import { LiveSession, type LiveSurroundings } from './live.session.js';
import { Turns } from './turns.js';

/** How often the keys of all sockets are looked at (ms). */
const RECHECK_MS = 1_000;
/** Parts of a past that are read at the same time. */
const REPLAYS_AT_ONCE = 4;

/** All sessions of one caller in this process: they are let in, and end, for the same reasons. */
interface Holder {
  readonly name: string;
  readonly caller: LiveCaller;
  readonly sessions: Set<LiveSession>;
}

/** The sockets of this process. */
@Injectable()
export class LiveSessions implements OnModuleDestroy {
  readonly #holders = new Map<string, Holder>();
  readonly #byOrganization = new Map<string, Set<LiveSession>>();
  /**
   * Holders to look at once more. Visitors and agents end by an event, of which the follower tells; the event may have passed before the
   * session joined, or a store was away when it came.
   */
  readonly #unsure = new Set<Holder>();
  readonly #allowances: Allowances<LiveSession>;
  readonly #surroundings: LiveSurroundings;
  #recheck: NodeJS.Timeout | undefined;
  #rechecking = false;

  constructor(
    @Inject(LiveFollower) follower: LiveFollower,
    @Inject(LiveAuthentication) private readonly authentication: LiveAuthentication,
    @Inject(LiveFeed) feed: LiveFeed,
    @Inject(LiveEvents) events: LiveEvents,
    @Inject(LiveMetrics) metrics: LiveMetrics,
    @Inject(CallerPositions) positions: CallerPositions,
    @Inject(LivePresence) private readonly presence: LivePresence,
    @Inject(CLOCK) private readonly clock: Clock,
    @Inject(LOGGER) private readonly log: Log,
  ) {
    this.#allowances = new Allowances<LiveSession>(clock);
    presence.sessionsOf = (organizationId) => this.of(organizationId);
    this.#surroundings = { follower, feed, events, metrics, positions, turns: new Turns(REPLAYS_AT_ONCE) };
    follower.onTold = (event) => presence.follow(event);
    follower.onEnded = (organizationId, kind, id) => {
      for (const session of this.of(organizationId)) {
        const { caller } = session;
        const ended = kind === 'visitor' ? caller.principal.visitorId === id : caller.agentId === id;
        const holder = this.#holders.get(session.holder);
        if (ended && holder !== undefined) this.#unsure.add(holder);
      }
      void this.#checkUnsure();
    };
  }

  /** Begins the session of a connection that was let in. @throws StoreUnavailable */
  async open(connection: LiveConnection, caller: LiveCaller, wish: LiveWish): Promise<LiveSession> {
    const head = await this.authentication.head();
    const session = new LiveSession(connection, caller, wish, { position: head, told: Infinity }, this.#surroundings);
    const own = this.#byOrganization.get(session.organizationId);
    if (own === undefined) this.#byOrganization.set(session.organizationId, new Set([session]));
    else own.add(session);
    let holder = this.#holders.get(session.holder);
    if (holder === undefined) this.#holders.set(session.holder, (holder = { name: session.holder, caller, sessions: new Set() }));
    holder.sessions.add(session);
    this.#recheck ??= setInterval(() => void this.recheck(), RECHECK_MS).unref();
    void this.#run(session, holder);
    return session;
  }

  /** The connection is gone. */
  gone(session: LiveSession): void {
    session.leave();
    this.#remove(session);
  }

  /** Every open session of an organization. */
  of(organizationId: string): Iterable<LiveSession> {
    return this.#byOrganization.get(organizationId) ?? [];
  }

  /**
   * Does what a client's message asks for. A message that is refused ends the socket; one about a conversation that is not there, or while a
   * store is away, is answered.
   */
  async receive(session: LiveSession, message: unknown): Promise<void> {
    try {
      const read = liveMessageOf(message, session.caller.principal.role);
      const allowed = this.#allowances.take(session);
      if (allowed === 'no more') throw new ThreadlogError('rate_limited', 'too many messages');
      if (allowed === 'yes') await this.presence.tell(session, read);
    } catch (error) {
      const { code, message: said } = knownError(error);
      if (code === 'not_found' || code === 'store_unavailable')
        session.connection.send(new LiveFrame({ type: 'error', data: { code, reason: said } }));
      else this.#end(session, ...closeOf(error));
    }
  }

  /** Ends the sessions of keys and tokens that are no longer valid. */
  async recheck(): Promise<void> {
    if (this.#rechecking) return;
    this.#rechecking = true;
    try {
      const now = this.clock.now();
      for (const { caller, sessions } of this.#holders.values()) {
        const { expiresAt } = caller.principal;
        if (expiresAt !== null && expiresAt <= now)
          for (const session of sessions) this.#end(session, 4401, 'the key or token has expired');
      }
      await this.#checkUnsure();
      const keys = [...this.#holders.values()].filter(({ caller }) => caller.principal.role !== 'visitor');
      await Promise.all(keys.map((holder) => this.#check(holder, () => this.authentication.hasValidKey(holder.caller))));
    } finally {
      this.#rechecking = false;
    }
  }

  onModuleDestroy(): void {
    clearInterval(this.#recheck);
    for (const { sessions } of this.#holders.values()) for (const session of sessions) this.#end(session, 1012);
  }

  async #run(session: LiveSession, holder: Holder): Promise<void> {
    try {
      await session.run();
      const { visitorId } = holder.caller.principal;
      if (holder.sessions.has(session) && (visitorId !== null || holder.caller.agentId !== null)) this.#unsure.add(holder);
      this.presence.greet(session);
    } catch (error) {
      this.#end(session, ...closeOf(error));
      if (!(knownError(error).code === 'store_unavailable'))
        this.log.error({ error: error instanceof Error ? error.message : String(error) }, 'a socket of the live feed failed');
    }
  }

  async #checkUnsure(): Promise<void> {
    const unsure = [...this.#unsure];
    this.#unsure.clear();
    await Promise.all(
      unsure.map(async (holder) => {
        const looked = await this.#check(holder, () => this.authentication.isStill(holder.caller));
        if (!looked && holder.sessions.size > 0) this.#unsure.add(holder);
      }),
    );
  }

  /** Ends a holder's sessions unless the holder is still valid. Answers false while a store is away: the next look comes within a second. */
  async #check({ sessions }: Holder, isValid: () => Promise<boolean>): Promise<boolean> {
    try {
      if (!(await isValid())) for (const session of sessions) this.#end(session, 4401, 'the key or token is no longer valid');
      return true;
    } catch (error) {
      if (knownError(error).code !== 'store_unavailable')
        this.log.error({ error: error instanceof Error ? error.message : String(error) }, 'a caller of the live feed could not be checked');
      return false;
    }
  }

  #end(session: LiveSession, code: CloseCode, reason?: string): void {
    this.#remove(session);
    session.end(code, reason);
  }

  #remove(session: LiveSession): void {
    const own = this.#byOrganization.get(session.organizationId);
    own?.delete(session);
    if (own?.size === 0) this.#byOrganization.delete(session.organizationId);
    const holder = this.#holders.get(session.holder);
    if (holder?.sessions.delete(session) !== true || holder.sessions.size > 0) return;
    this.#holders.delete(holder.name);
    this.#unsure.delete(holder);
  }
}

const CLOSES: { readonly [code in ErrorCode]?: CloseCode } = {
  unauthenticated: 4401,
  forbidden: 4403,
  unknown_agent: 4403,
  resource_archived: 4403,
  rate_limited: 4429,
  store_unavailable: 1013,
  too_many_sockets: 1013,
  internal_error: 1011,
};

/** The close code for an error, and the reason, which names the field. */
export function closeOf(error: unknown): [CloseCode, string] {
  const { code, message, extra } = knownError(error);
  const [first] = extra.errors ?? [];
  return [CLOSES[code] ?? 4400, first === undefined ? message : `${first.field} ${first.message}`];
}
