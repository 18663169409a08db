import type { Frame } from '../store/conversation-store.js';
import { ask, Refused } from './request.js';

/** How long to wait before the feed is asked for again (ms), with a part by chance, so that not all pages come back at once. */
const AGAIN_MS = [300, 1_000, 2_500, 5_000] as const;
const CHANCE_MS = 500;

export type FeedState = 'connecting' | 'live' | 'away' | 'signed out';

export interface FeedUser {
  /** The position after which frames are wanted; undefined for what comes from now on. */
  since(): string | undefined;
  actingFor(): string | null;
  began(position: string): void;
  take(frames: readonly Frame[]): void;
  became(state: FeedState): void;
}

/**
 * Follows the live feed for as long as it is open: after a cut it goes on behind the last frame, so that nothing is missed and nothing is
 * read anew. Frames are handed over together, once for each picture that the browser paints.
 */
export class LiveFeed {
  #socket: WebSocket | undefined;
  #closed = false;
  #tries = 0;
  #waiting: Frame[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly user: FeedUser) {
    addEventListener('online', this.#atOnce);
    void this.#connect();
  }

  close(): void {
    this.#closed = true;
    removeEventListener('online', this.#atOnce);
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  readonly #atOnce = () => {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    void this.#connect();
  };

  async #connect(): Promise<void> {
    this.user.became(this.#tries === 0 ? 'connecting' : 'away');
    let ticket: string;
    try {
      // A ticket is used up by one socket, and no key or cookie stands in an address.
      const { data } = await ask<{ ticket: string }>('/live-tickets', { method: 'POST', body: {}, actingFor: this.user.actingFor() });
      ticket = data.ticket;
    } catch (error) {
      if (error instanceof Refused && error.problem.code === 'unauthenticated') return this.user.became('signed out');
      return this.#again();
    }
    if (this.#closed) return;
    const address = new URL('/support/conversations/live', location.href);
    address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
    address.searchParams.set('ticket', ticket);
    const since = this.user.since();
    if (since !== undefined) address.searchParams.set('since', since);
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.addEventListener('message', ({ data }) => this.#told(String(data)));
    socket.addEventListener('close', () => this.#again());
  }

  #told(text: string): void {
    const frame = JSON.parse(text) as Partial<Frame> & { readonly type: string };
    if (frame.type === 'ready') {
      this.#tries = 0;
      if (frame.position !== undefined) this.user.began(frame.position);
      return this.user.became('live');
    }
    // Presence has no position.
    if (frame.position === undefined || frame.data === undefined) return;
    this.#waiting.push(frame as Frame);
    if (this.#waiting.length > 1) return;
    // A page that is not seen paints nothing, so that the frames would wait.
    if (document.hidden) setTimeout(() => this.#handOver(), 0);
    else requestAnimationFrame(() => this.#handOver());
  }

  #handOver(): void {
    const frames = this.#waiting;
    this.#waiting = [];
    this.user.take(frames);
  }

  #again(): void {
    if (this.#closed) return;
    this.user.became('away');
    const wait = AGAIN_MS[Math.min(this.#tries++, AGAIN_MS.length - 1)] ?? 0;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        void this.#connect();
      },
      wait + Math.random() * CHANCE_MS,
    );
  }
}
