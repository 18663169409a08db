import { Inject, Injectable } from '@nestjs/common';
import { CLOCK, type Clock } from '../clock.js';
import { CONFIG, type Config } from '../config.js';
import { ThreadlogError } from '../errors.js';
import { networkOf } from './rate-limits.js';

/** How long a connection may be open without a key (ms). */
const STRANGER_MS = 5_000;
/** How often it is looked who has been there too long (ms). */
const LOOK_MS = 500;
/** Connections without a key that one address, and all addresses together, may have at the same time. */
export const MOST_STRANGERS = { ofAddress: 100, all: 1_000 } as const;
/** Connections that one visitor may have at the same time: whoever visits a shop has a token, and must not take the places of all others. */
export const MOST_OF_VISITOR = 10;

/** Whose a key or token is. */
interface Holder {
  readonly organizationId: string;
  /** Null for a key. */
  readonly visitorId: string | null;
}

interface Stranger {
  readonly network: string;
  /** ms since 1970 */
  readonly since: number;
  readonly late: () => void;
}

/**
 * The sockets that this process serves at once. A connection that has shown no valid key yet is a stranger: strangers have few places of
 * their own and little time, so that they take no place from those who have a key.
 */
@Injectable()
export class SocketPlaces {
  readonly #strangers = new Map<object, Stranger>();
  readonly #ofNetwork = new Map<string, number>();
  readonly #taken = new Map<object, Holder>();
  readonly #ofOrganization = new Map<string, number>();
  readonly #ofVisitor = new Map<string, number>();
  /** Connections that one organization may have at the same time, so that no organization takes the places of all others. */
  readonly #mostOfOrganization: number;

  #watch: NodeJS.Timeout | undefined;

  constructor(
    @Inject(CONFIG) private readonly config: Pick<Config, 'LIVE_MAX_SOCKETS' | 'LIVE_MAX_SOCKETS_PER_ORGANIZATION'>,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {
    this.#mostOfOrganization = config.LIVE_MAX_SOCKETS_PER_ORGANIZATION ?? Math.ceil(config.LIVE_MAX_SOCKETS / 2);
  }

  /** @throws ThreadlogError too_many_sockets */
  assertRoom(): void {
    if (this.#taken.size >= this.config.LIVE_MAX_SOCKETS) throw new ThreadlogError('too_many_sockets');
  }

  /** @param address of the client; for IPv6 the network counts. @throws ThreadlogError too_many_sockets */
  assertRoomForStranger(address: string): void {
    this.assertRoom();
    if (this.#strangers.size >= MOST_STRANGERS.all) throw new ThreadlogError('too_many_sockets', 'too many connections have shown no key');
    if ((this.#ofNetwork.get(networkOf(address)) ?? 0) >= MOST_STRANGERS.ofAddress)
      throw new ThreadlogError('too_many_sockets', 'too many connections from this address have shown no key');
  }

  /**
   * Takes a place for a connection without a key.
   * @param late called when the connection still has none after STRANGER_MS
   * @throws ThreadlogError as assertRoomForStranger()
   */
  admitStranger(connection: object, address: string, late: () => void): void {
    this.assertRoomForStranger(address);
    const network = networkOf(address);
    this.#strangers.set(connection, { network, since: this.clock.now(), late });
    this.#watch ??= setInterval(() => this.#look(), LOOK_MS).unref();
    countUp(this.#ofNetwork, network);
  }

  /**
   * Takes a place for an open connection that has shown a valid key or token. Without room a stranger stays a stranger.
   * @throws ThreadlogError as assertRoom(), and when the organization has all of its connections or the visitor MOST_OF_VISITOR
   */
  admit(connection: object, { organizationId, visitorId }: Holder): void {
    if (this.#taken.has(connection)) return;
    this.assertRoom();
    const holder = { organizationId, visitorId };
    const visitor = visitorOf(holder);
    if ((this.#ofOrganization.get(organizationId) ?? 0) >= this.#mostOfOrganization)
      throw new ThreadlogError(
        'too_many_sockets',
        `this process serves at most ${this.#mostOfOrganization} connections of an organization`,
      );
    if (visitor !== undefined && (this.#ofVisitor.get(visitor) ?? 0) >= MOST_OF_VISITOR)
      throw new ThreadlogError('too_many_sockets', `a visitor has at most ${MOST_OF_VISITOR} connections`);
    countUp(this.#ofOrganization, organizationId);
    if (visitor !== undefined) countUp(this.#ofVisitor, visitor);
    this.#forget(connection);
    this.#taken.set(connection, holder);
  }

  /** The connection is closed. */
  leave(connection: object): void {
    this.#forget(connection);
    const holder = this.#taken.get(connection);
    if (holder === undefined) return;
    this.#taken.delete(connection);
    countDown(this.#ofOrganization, holder.organizationId);
    const visitor = visitorOf(holder);
    if (visitor !== undefined) countDown(this.#ofVisitor, visitor);
  }

  #forget(connection: object): void {
    const stranger = this.#strangers.get(connection);
    if (stranger === undefined) return;
    this.#strangers.delete(connection);
    countDown(this.#ofNetwork, stranger.network);
  }

  #look(): void {
    const now = this.clock.now();
    // A clock that was set back keeps nobody.
    for (const { since, late } of this.#strangers.values()) if (now - since >= STRANGER_MS || since > now) late();
    if (this.#strangers.size > 0) return;
    clearInterval(this.#watch);
    this.#watch = undefined;
  }
}

/** The name under which a visitor is counted. */
const visitorOf = ({ organizationId, visitorId }: Holder) => (visitorId === null ? undefined : `${organizationId} ${visitorId}`);

function countUp(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}

function countDown(counts: Map<string, number>, name: string): void {
  const left = (counts.get(name) ?? 0) - 1;
  if (left > 0) counts.set(name, left);
  else counts.delete(name);
}
