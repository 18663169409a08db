import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import type { FastifyInstance } from 'fastify';

/**
 * The end of an API process under load. A connection that the server closes while the client is about to use it costs the client a request,
 * and nothing tells the client that it was not done. So the process first says that it is going, to balancers by its readiness and to clients
 * by `Connection: close` on every answer (RFC 9112 §9.6), and goes on answering; only what nobody used meanwhile is closed from here.
 */
@Injectable()
export class Shutdown {
  #begun = false;

  /** Whether the process is on its way out; its readiness then says no. */
  get begun(): boolean {
    return this.#begun;
  }

  install(server: FastifyInstance): void {
    server.addHook('onSend', (_request, reply, payload, done) => {
      if (this.#begun) void reply.header('connection', 'close');
      done(null, payload);
    });
  }

  /** Returns when the clients have had their time (ms) to go elsewhere. */
  async begin(delayMs: number): Promise<void> {
    this.#begun = true;
    await sleep(delayMs);
  }
}
