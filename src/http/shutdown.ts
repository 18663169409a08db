import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import type { FastifyInstance } from 'fastify';

/**
 * Ends an API process under load. A connection that the server closes just when the client uses it costs the client a request, and the
 * client cannot know whether it was handled. So the process first announces its end, to balancers by its readiness and to clients by
 * `Connection: close` on every answer (RFC 9112 §9.6), and goes on answering; the server itself closes only connections that stay unused.
 */
@Injectable()
export class Shutdown {
  #begun = false;

  /** Whether the process is shutting down; its readiness then fails. */
  get begun(): boolean {
    return this.#begun;
  }

  install(server: FastifyInstance): void {
    server.addHook('onSend', (_request, reply, payload, done) => {
      if (this.#begun) void reply.header('connection', 'close');
      done(null, payload);
    });
  }

  /** Returns after the clients have had their time (ms) to switch to another process. */
  async begin(delayMs: number): Promise<void> {
    this.#begun = true;
    await sleep(delayMs);
  }
}
