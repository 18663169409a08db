import { randomUUID } from 'node:crypto';
import { ask } from '../support/ask.js';
import { type SeededRandom, seededRandom } from '../support/seeded-random.js';

/** Where clients send their requests. */
export interface Server {
  readonly url: string;
  readonly key: string;
  /** Undefined while it does not run, or where nobody knows. */
  readonly pid?: number | undefined;
}

/** What a client wants done, and what it knows of it. */
export interface Wish {
  readonly kind: 'open' | 'reply' | 'note' | 'message' | 'tag';
  /** Stands in what is to be written, and in nothing else. */
  readonly marker: string;
  readonly path: string;
  readonly body: object;
  /** With one, the client asks again until it is answered; without one, it never may. */
  readonly idempotencyKey: string | undefined;
  /** acknowledged: answered with 2xx. refused: answered with an error that says that nothing was written. unknown: anything else. */
  outcome: 'acknowledged' | 'refused' | 'unknown';
  /** Requests that were sent, to one process after the other. */
  attempts: number;
  /** The answer's own ids. */
  conversationId: string | undefined;
  messageId: string | undefined;
}

interface Answered {
  readonly status: number;
  readonly position: string | null;
  readonly body: {
    readonly code?: string;
    readonly data?: { readonly id: string; readonly messages?: readonly { readonly id: string }[] };
  };
}

/** Answers after which the same request may be sent again with the same key. */
const AGAIN = new Set(['store_unavailable', 'outcome_unknown', 'concurrent_changes', 'idempotency_key_in_flight']);
const REQUEST_MS = 20_000;

/** Clients that write without a pause and keep a history of what they were told, whatever happens to the server meanwhile. */
export class Writers {
  readonly history: Wish[] = [];
  /** Answers that no client should ever get, since the last start. */
  readonly scandals: string[] = [];
  acknowledged = 0;
  /** Answers by status and code, and connections that ended without one. */
  readonly answers = new Map<string, number>();
  /** The longest that any request took to be answered since the last start (ms). */
  slowestMs = 0;
  /** The greatest X-Position of all answers. */
  position = '';
  readonly #servers: readonly Server[];
  readonly #shared: readonly string[];
  #stopping = false;
  #next = 0;
  #running: Promise<unknown> = Promise.resolve();
  readonly #randoms: readonly SeededRandom[];

  /**
   * @param servers processes of one installation: who gets no answer from one asks the next
   * @param shared conversations that all of them write to
   */
  constructor(servers: readonly Server[], shared: readonly string[], writers: number, seed: number) {
    this.#servers = servers;
    this.#shared = shared;
    this.#randoms = Array.from({ length: writers }, (_, writer) => seededRandom(seed + writer));
  }

  start(): void {
    this.#stopping = false;
    this.scandals.length = 0;
    this.slowestMs = 0;
    this.#running = Promise.all(
      this.#randoms.map(async (random, writer) => {
        // Its own last conversation takes the tags, of which a conversation has at most a hundred.
        const own: string[] = [];
        while (!this.#stopping) {
          const wish = this.#wish(random, writer, own);
          this.history.push(wish);
          await this.#fulfil(wish);
          if (wish.kind === 'open' && wish.conversationId !== undefined) own.push(wish.conversationId);
        }
      }),
    );
  }

  /** Waits until nobody has a request on its way, and every one with a key is answered. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running;
  }

  /** Sends an answered request once more, as a client does that did not hear the answer; gives the ids of that answer. */
  async again(wish: Wish): Promise<{ conversationId: string | undefined; messageId: string | undefined }> {
    const answer = await this.#send(wish);
    if (answer === undefined || answer.status >= 300) throw new Error(`${wish.marker} again: ${JSON.stringify(answer)}`);
    return idsOf(wish, answer);
  }

  #wish(random: SeededRandom, writer: number, own: readonly string[]): Wish {
    const marker = `w${writer}.${this.history.length}.${randomUUID().slice(0, 8)}`;
    const idempotencyKey = random.int(2) === 0 ? randomUUID() : undefined;
    const last = own.at(-1);
    const kind = random.pick(['open', 'tag', 'note', 'note', 'message', 'message', 'reply', 'reply', 'reply', 'reply'] as const);
    const rest = { marker, idempotencyKey, outcome: 'unknown', attempts: 0, messageId: undefined } as const;
    if (kind === 'open' || (kind === 'tag' && last === undefined)) {
      const visitor = { name: marker, ...(random.int(2) === 0 ? { email: `${marker}@example.com` } : {}) };
      return { ...rest, kind: 'open', path: '/conversations', body: { visitor, message: marker }, conversationId: undefined };
    }
    if (kind === 'tag' && last !== undefined)
      return { ...rest, kind, path: `/conversations/${last}/tags`, body: { tags: [marker] }, conversationId: last };
    const conversationId = random.pick(this.#shared);
    const path = `/conversations/${conversationId}/${kind === 'message' ? 'messages' : 'reply'}`;
    return { ...rest, kind, path, body: { message: marker, ...(kind === 'note' ? { type: 'note' } : {}) }, conversationId };
  }

  async #fulfil(wish: Wish): Promise<void> {
    // Long enough for any restart; a key that is still not answered then is a finding.
    for (const until = performance.now() + 120_000; ;) {
      const answer = await this.#send(wish);
      const code = answer?.body.code;
      const told = answer === undefined ? 'no answer' : answer.status < 300 ? String(answer.status) : `${answer.status} ${code}`;
      this.answers.set(told, (this.answers.get(told) ?? 0) + 1);
      if (answer !== undefined && answer.status < 300) {
        Object.assign(wish, { outcome: 'acknowledged', ...idsOf(wish, answer) });
        this.acknowledged += 1;
        if (answer.position === null) this.scandals.push(`${wish.marker}: ${answer.status} without X-Position`);
        else if (answer.position > this.position) this.position = answer.position;
        return;
      }
      if (answer !== undefined && !AGAIN.has(code ?? '')) {
        this.scandals.push(`${wish.kind} ${wish.marker}: ${JSON.stringify(answer)}`);
        return;
      }
      if (wish.idempotencyKey === undefined) {
        if (answer !== undefined && code !== 'outcome_unknown') wish.outcome = 'refused';
        return;
      }
      if (performance.now() > until) {
        this.scandals.push(`${wish.kind} ${wish.marker}: not answered by the same key in two minutes, last ${told}`);
        return;
      }
      // A client's pause before it asks again.
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Undefined when the connection ended without an answer. */
  async #send(wish: Wish): Promise<Answered | undefined> {
    const server = this.#servers[(this.#next + wish.attempts) % this.#servers.length];
    if (server === undefined) throw new Error('there is nobody to write to');
    if (wish.attempts === 0) this.#next += 1;
    wish.attempts += 1;
    const began = performance.now();
    try {
      const response = await ask(`${server.url}/api/support${wish.path}`, {
        method: 'POST',
        headers: {
          'x-api-key': server.key,
          'content-type': 'application/json',
          ...(wish.idempotencyKey === undefined ? {} : { 'idempotency-key': wish.idempotencyKey }),
        },
        body: JSON.stringify(wish.body),
        signal: AbortSignal.timeout(REQUEST_MS),
      });
      const body = JSON.parse(response.text) as Answered['body'];
      this.slowestMs = Math.max(this.slowestMs, performance.now() - began);
      if (response.status === 503 && response.headers.get('retry-after') === null)
        this.scandals.push(`${wish.marker}: 503 without Retry-After`);
      return { status: response.status, position: response.headers.get('x-position'), body };
    } catch {
      // Whatever broke: the client knows nothing.
      this.slowestMs = Math.max(this.slowestMs, performance.now() - began);
      return undefined;
    }
  }
}

function idsOf(wish: Wish, { body }: Answered): { conversationId: string | undefined; messageId: string | undefined } {
  switch (wish.kind) {
    case 'open':
      return { conversationId: body.data?.id, messageId: body.data?.messages?.[0]?.id };
    case 'tag':
      return { conversationId: wish.conversationId, messageId: undefined };
    case 'reply':
    case 'note':
    case 'message':
      return { conversationId: wish.conversationId, messageId: body.data?.id };
  }
}

/** A conversation for all of them to write to. */
export async function openShared({ url, key }: Server): Promise<string> {
  const response = await fetch(`${url}/api/support/conversations`, {
    method: 'POST',
    headers: { 'x-api-key': key, 'content-type': 'application/json' },
    body: JSON.stringify({ visitor: { name: 'Shared' }, message: 'Hello' }),
  });
  const body = (await response.json()) as { data: { id: string } };
  if (response.status !== 201) throw new Error(JSON.stringify(body));
  return body.data.id;
}
