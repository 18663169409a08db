import { Inject, Injectable } from '@nestjs/common';
import { Counter, Gauge } from 'prom-client';
import { Metrics } from '../metrics/metrics.js';
import type { LiveCarrier } from './live-connection.js';

type Transport = LiveCarrier['transport'];

/** What the live feed tells about itself on /metrics. */
@Injectable()
export class LiveMetrics {
  readonly #sockets: Gauge<'transport'>;
  readonly #frames: Counter<'transport'>;
  readonly #cut: Counter<'transport'>;
  readonly #replayed: Counter;
  readonly #leftOut: Counter;

  constructor(@Inject(Metrics) { registry }: Metrics) {
    const registers = [registry];
    const labelNames = ['transport'] as const;
    this.#sockets = new Gauge({ name: 'threadlog_live_sockets', help: 'Open sockets of the live feed.', labelNames, registers });
    this.#frames = new Counter({
      name: 'threadlog_live_frames_total',
      help: 'Frames handed to sockets of the live feed.',
      labelNames,
      registers,
    });
    this.#cut = new Counter({
      name: 'threadlog_live_slow_readers_cut_total',
      help: 'Sockets that were cut off, since they read too slowly.',
      labelNames,
      registers,
    });
    this.#replayed = new Counter({
      name: 'threadlog_live_replayed_frames_total',
      help: 'Frames that were read again from the table of events for clients that asked for their past.',
      registers,
    });
    this.#leftOut = new Counter({
      name: 'threadlog_live_events_left_out_total',
      help: 'Events that could not be read or told, of which no socket was told. The log names each.',
      registers,
    });
    for (const transport of ['websocket', 'socket.io'] satisfies Transport[]) {
      this.#sockets.set({ transport }, 0);
      this.#frames.inc({ transport }, 0);
      this.#cut.inc({ transport }, 0);
    }
  }

  opened(transport: Transport): void {
    this.#sockets.inc({ transport });
  }

  closed(transport: Transport): void {
    this.#sockets.dec({ transport });
  }

  sent(transport: Transport, frames: number): void {
    this.#frames.inc({ transport }, frames);
  }

  cut(transport: Transport): void {
    this.#cut.inc({ transport });
  }

  replayed(frames: number): void {
    this.#replayed.inc(frames);
  }

  leftOut(): void {
    this.#leftOut.inc();
  }
}
