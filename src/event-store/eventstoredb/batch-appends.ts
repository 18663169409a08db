import type { BatchAppendResp } from '@eventstore/db-client/generated/streams_pb.js';
import type { Expected, Position } from '../event-store.js';
import type { BatchAppendCall, Connection, GuardedClient } from './guarded-client.js';
import { batchAppendRequest, toPosition } from './wire-format.js';
import type { ProposedEvents } from './wire-format.js';

/** The result of a request, once it was answered or certainly will not be. */
export type AppendAnswer =
  | { readonly kind: 'written'; readonly revision: number; readonly position: Position | undefined }
  | { readonly kind: 'wrong-revision' }
  /** Certainly not written, and another attempt would end the same way. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** The append may be written now, later or never. */
  | { readonly kind: 'unclear'; readonly reason: string };

interface Waiting {
  readonly sentAt: number;
  readonly answer: (answer: AppendAnswer) => void;
}

/** How long the server may owe an answer (ms) before the connection is given up. The batch call itself has no deadline. */
const ANSWER_MS = 5_000;
const LOOK_EVERY_MS = 250;

/**
 * Sends this process's appends over one BatchAppend call, the server's fast path: at 32 writers a call per append reaches half its rate.
 * Only this object holds the waiting requests, so an error elsewhere in the process cannot reject them. Late answers are dropped.
 */
export class BatchAppends {
  readonly #client: GuardedClient;
  #open: OpenCall | undefined;

  constructor(client: GuardedClient) {
    this.#client = client;
  }

  /** Never rejects. */
  send(connection: Connection, stream: string, expected: Expected, events: ProposedEvents): Promise<AppendAnswer> {
    if (this.#open?.connection !== connection || this.#open.over) this.#open = new OpenCall(connection, this.#client);
    return this.#open.send(stream, expected, events);
  }

  close(): void {
    this.#open?.fail('the event store was closed');
  }
}

class OpenCall {
  readonly connection: Connection;
  over = false;
  readonly #client: GuardedClient;
  readonly #call: BatchAppendCall;
  /** Requests in the order of sending, so that the first is the oldest. */
  readonly #waiting = new Map<string, Waiting>();
  #watchdog: NodeJS.Timeout | undefined;

  constructor(connection: Connection, client: GuardedClient) {
    this.connection = connection;
    this.#client = client;
    this.#call = connection.batchAppend();
    this.#call.on('data', (response: BatchAppendResp) => this.#answered(response));
    this.#call.on('error', (error: Error) => this.fail(error.message));
    this.#call.on('end', () => this.fail('the server ended the call'));
  }

  send(stream: string, expected: Expected, events: ProposedEvents): Promise<AppendAnswer> {
    const { correlation, request } = batchAppendRequest(stream, expected, events);
    return new Promise((answer) => {
      this.#waiting.set(correlation, { sentAt: performance.now(), answer });
      this.#watchdog ??= setInterval(() => this.#watch(), LOOK_EVERY_MS);
      // Back-pressure can be ignored: each caller waits for its answer, so the buffer holds no more than the callers do.
      this.#call.write(request);
    });
  }

  fail(reason: string): void {
    if (this.over) return;
    this.over = true;
    clearInterval(this.#watchdog);
    this.#call.cancel();
    // The cause of a broken call (a dead node reported as UNKNOWN, a poisoned stream) may have broken the channel under it as well.
    this.#client.giveUp(this.connection);
    for (const { answer } of this.#waiting.values()) answer({ kind: 'unclear', reason });
    this.#waiting.clear();
  }

  #answered(response: BatchAppendResp): void {
    const correlation = response.getCorrelationId()?.getString() ?? '';
    const waiting = this.#waiting.get(correlation);
    if (!waiting) return;
    this.#waiting.delete(correlation);
    if (this.#waiting.size === 0) {
      clearInterval(this.#watchdog);
      this.#watchdog = undefined;
    }
    waiting.answer(toAnswer(response));
  }

  #watch(): void {
    const [oldest] = this.#waiting.values();
    if (oldest && performance.now() - oldest.sentAt > ANSWER_MS) this.fail(`the server owed an answer for ${ANSWER_MS} ms`);
  }
}

function toAnswer(response: BatchAppendResp): AppendAnswer {
  const success = response.getSuccess();
  if (success) {
    const position = success.getPosition();
    return {
      kind: 'written',
      revision: Number(success.getCurrentRevision()),
      position: position && toPosition(position.getCommitPosition(), position.getPreparePosition()),
    };
  }
  const error = response.getError();
  const type = error?.getDetails()?.getTypeName() ?? '';
  switch (type) {
    case 'event_store.client.WrongExpectedVersion':
      return { kind: 'wrong-revision' };
    case 'event_store.client.MaximumAppendSizeExceeded':
      return { kind: 'refused', reason: "the append is over the server's MaxAppendSize, which must be at least 1 MiB (its default)" };
    case 'event_store.client.AccessDenied':
      return { kind: 'refused', reason: 'EventStoreDB denied access to the stream' };
    case 'event_store.client.StreamDeleted':
      return { kind: 'refused', reason: 'the stream was deleted in EventStoreDB by someone else' };
    default:
      return { kind: 'unclear', reason: `${type} ${error?.getMessage() ?? ''}`.trim() };
  }
}
