import type { FastifyRequest } from 'fastify';
import type { Position } from '../event-store/event-store.js';
import { ThreadlogError } from '../platform/errors.js';
import type { Checkpoints } from './checkpoints.js';

/** How long a read waits for its read model (ms). */
const WAIT_MS = 5_000;

/** As one log or the other numbers its events; a position of the wrong one is never reached. */
const POSITION = /^\d{19}(-\d{19})?$/;

/** Lets a read see an earlier write. */
export class ReadModel {
  constructor(private readonly checkpoints: Checkpoints) {}

  /**
   * Waits until a group has reached the request's X-Min-Position, if it has one.
   * @param group that the answer is read from
   * @throws ThreadlogError malformed_request, read_model_behind
   */
  async reached(request: FastifyRequest, group: string): Promise<void> {
    const header = request.headers['x-min-position'];
    if (header === undefined) return;
    if (typeof header !== 'string' || !POSITION.test(header))
      throw new ThreadlogError('malformed_request', 'X-Min-Position is the X-Position of an earlier answer');
    const waited = await this.checkpoints.waitFor(group, header as Position, WAIT_MS);
    if (waited !== 'reached') throw new ThreadlogError('read_model_behind', undefined, { retryAfterSeconds: 1 });
  }
}
