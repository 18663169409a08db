import type { FastifyRequest } from 'fastify';
import type { EventStore, Position } from '../event-store/event-store.js';
import type { CallerPositions } from '../security/caller-positions.js';
import { principalOf } from '../security/callers.js';
import { ThreadlogError } from '../errors.js';
import type { Checkpoints } from './checkpoints.js';

/** How long a read waits for its read model (ms). */
const WAIT_MS = 5_000;
/** Retry-After for a stream that waits for an operator (s). */
const PARKED_RETRY_SECONDS = 60;

/** How often a reactor's checkpoint is read while a caller waits for it (ms). */
const POLL_MS = 20;

/** Makes a read see an earlier write. */
export class ReadYourWrites {
  constructor(
    private readonly checkpoints: Checkpoints,
    private readonly store: EventStore,
    private readonly positions: CallerPositions,
  ) {}

  /** Whether the request has an X-Min-Position, for reads that are never behind. @throws ThreadlogError malformed_request */
  isAsked(request: FastifyRequest): boolean {
    return this.#minPosition(request) !== undefined;
  }

  /**
   * Waits until a group has reached the request's X-Min-Position, if it has one.
   * @param group the group that the answer is read from
   * @param holds.parked true: the answer includes events of parked streams, as the feed of events does
   * @throws ThreadlogError malformed_request, read_model_behind, stream_parked; StoreUnavailable
   */
  async reached(request: FastifyRequest, group: string, holds: { readonly parked?: true } = {}): Promise<void> {
    const position = this.#minPosition(request);
    if (position === undefined) return;
    const waited = await this.checkpoints.waitFor(group, position, WAIT_MS);
    if (waited !== 'reached') throw new ThreadlogError('read_model_behind', undefined, { retryAfterSeconds: 1 });
    if (holds.parked !== true && (await this.isParked(group, principalOf(request).organizationId, position)))
      throw new ThreadlogError('stream_parked', 'the change at this position cannot be shown until an operator has looked at it', {
        retryAfterSeconds: PARKED_RETRY_SECONDS,
      });
  }

  /**
   * As reached(), for what a reactor has written.
   * @throws ThreadlogError malformed_request, read_model_behind
   */
  async reachedByReactor(request: FastifyRequest, reactor: string): Promise<void> {
    const position = this.#minPosition(request);
    if (position === undefined) return;
    const end = performance.now() + WAIT_MS;
    while ((await this.checkpoints.ofReactor(reactor)) < position) {
      if (performance.now() > end) throw new ThreadlogError('read_model_behind', undefined, { retryAfterSeconds: 1 });
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  #minPosition(request: FastifyRequest): Position | undefined {
    const header = request.headers['x-min-position'];
    if (header === undefined) return undefined;
    const caller = principalOf(request);
    const named = typeof header === 'string' ? this.positions.read(caller, header) : undefined;
    if (named === undefined)
      throw new ThreadlogError(
        'malformed_request',
        caller.visitorId === null
          ? 'X-Min-Position must be the X-Position of an earlier answer'
          : 'X-Min-Position must be a position that this visitor was told',
      );
    // A live frame's position has a number after the dot: the stored event has none.
    return named.split('.', 1)[0] as Position;
  }

  /** Whether the event at a position belongs to a parked stream: the checkpoint has passed it, and no row includes it. */
  private async isParked(group: string, organizationId: string, position: Position): Promise<boolean> {
    for (const stream of await this.checkpoints.parked(group, organizationId, position))
      read: for await (const events of this.store.read(stream, { backwards: true }))
        for (const event of events) {
          if (event.position === position) return true;
          if (event.position < position) break read;
        }
    return false;
  }
}
