import { isIP } from 'node:net';
import { LRUCache } from 'lru-cache';
import type { Principal } from '../security/api-key-lookup.js';
import type { Clock } from '../clock.js';
import { ThreadlogError } from '../errors.js';

const WINDOW_MS = 60_000;
/** The most API keys, and the most addresses, that are counted at once; beyond it the least recently seen are forgotten. */
const COUNTED = 50_000;

/** What receives the headers of an answer: a reply of HTTP, or the answer to a handshake. */
export interface AnswerHeaders {
  header(name: string, value: string | number): unknown;
}

interface Window {
  count: number;
  /** ms; the window begins with the first request that is counted. */
  endsAt: number;
}

/** The counted failures of an address, and the running lookups that may become failures. */
interface Attempts extends Window {
  pending: number;
  readonly waiting: (() => void)[];
}

/**
 * How many requests an API key may send, and how many failed authentications an address may have, in a minute. Counted in this process
 * alone: with n API processes behind a balancer a key gets up to n times as much. Requests over the limit are refused before any lookup.
 */
export class RateLimits {
  private readonly requests = new LRUCache<string, Window>({ max: COUNTED });
  private readonly failures = new LRUCache<string, Attempts>({ max: COUNTED });

  /** @param limits per minute; 0 means no limit */
  constructor(
    private readonly limits: { readonly requests: number; readonly failures: number },
    private readonly clock: Clock,
  ) {}

  /**
   * Counts one request of a key, and reports the rest of the limit in the answer's headers.
   * @throws ThreadlogError rate_limited
   */
  countRequest({ keyId, rateLimitPerMinute }: Principal, headers: AnswerHeaders): void {
    const limit = rateLimitPerMinute ?? this.limits.requests;
    if (limit === 0) return;
    const now = this.clock.now();
    let window = this.requests.get(keyId);
    if (window === undefined || isOver(window, now)) this.requests.set(keyId, (window = { count: 0, endsAt: now + WINDOW_MS }));
    const over = window.count >= limit;
    if (!over) window.count++;
    describe(headers, limit, window);
    if (over) throw tooMany(window, now, `this key may call ${limit} times a minute`);
  }

  /**
   * Runs a lookup that tells whether credentials are valid, and counts a failure against the address's limit for the minute. Runs at most
   * as many lookups at once as failures are left, and lets the others wait: valid credentials are never refused because of others that
   * arrive at the same moment, and a hundred invalid ones at once are no better than a hundred in turn.
   * @param address of the client; for IPv6 the network counts, since whoever has one address in it has 2^64
   * @throws ThreadlogError rate_limited
   */
  async authenticate<T>(address: string, headers: AnswerHeaders, lookUp: () => Promise<T | undefined>): Promise<T | undefined> {
    const limit = this.limits.failures;
    if (limit === 0) return lookUp();
    const attempts = this.attemptsOf(networkOf(address));
    while (attempts.count < limit && attempts.count + attempts.pending >= limit)
      await new Promise<void>((resolve) => attempts.waiting.push(resolve));
    if (attempts.count >= limit) {
      describe(headers, limit, attempts);
      throw tooMany(attempts, this.clock.now(), 'too many API keys from this address were not valid');
    }
    attempts.pending++;
    try {
      const found = await lookUp();
      if (found === undefined) {
        attempts.count++;
        describe(headers, limit, attempts);
      }
      return found;
    } finally {
      attempts.pending--;
      if (attempts.count >= limit) for (const proceed of attempts.waiting.splice(0)) proceed();
      else attempts.waiting.shift()?.();
    }
  }

  private attemptsOf(network: string): Attempts {
    const now = this.clock.now();
    let attempts = this.failures.get(network);
    if (attempts === undefined) this.failures.set(network, (attempts = { count: 0, endsAt: now + WINDOW_MS, pending: 0, waiting: [] }));
    else if (isOver(attempts, now)) {
      attempts.count = 0;
      attempts.endsAt = now + WINDOW_MS;
    }
    return attempts;
  }
}

/** Also true after the clock was set back: nobody waits longer than a minute. */
const isOver = ({ endsAt }: Window, now: number) => now >= endsAt || endsAt - now > WINDOW_MS;

function describe(headers: AnswerHeaders, limit: number, { count, endsAt }: Window): void {
  headers.header('x-ratelimit-limit', limit);
  headers.header('x-ratelimit-remaining', Math.max(0, limit - count));
  headers.header('x-ratelimit-reset', Math.ceil(endsAt / 1000));
}

function tooMany({ endsAt }: Window, now: number, detail: string): ThreadlogError {
  return new ThreadlogError('rate_limited', detail, { retryAfterSeconds: Math.max(1, Math.ceil((endsAt - now) / 1000)) });
}

/** An IPv4 address, also when it is written as IPv6; the first 64 bits of any other IPv6 address. */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  // A proxy may write anything here; any text is counted as it is, in bounded memory.
  if (isIP(address) !== 6) return address.slice(0, 64);
  const [head = '', tail] = address.toLowerCase().split('::', 2);
  const groups = (part: string | undefined) => (part === undefined || part === '' ? [] : part.split(':'));
  const [first, last] = [groups(head), groups(tail)];
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - first.length - last.length);
  return [...first, ...Array.from({ length: zeros }, () => '0'), ...last].slice(0, 4).join(':');
}
