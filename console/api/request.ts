import type { Problem } from './problem.js';

/** Everything that the console asks goes through here: the public API, with the session's cookie. */
const API = '/api/support';
/** A request that takes longer is taken for lost; what writes is sent again with its key. */
const PATIENCE_MS = 20_000;

export interface Ask {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly query?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: unknown;
  readonly idempotencyKey?: string;
  readonly ifMatch?: number;
  /** The agent that an admin acts for. */
  readonly actingFor?: string | null;
  readonly signal?: AbortSignal;
}

export interface Answer<T> {
  readonly data: T;
  readonly meta?: { readonly total?: number; readonly hasMore: boolean; readonly nextCursor: string | null };
  /** Of ETag. */
  readonly revision: number | null;
}

/** The server answered with an error. */
export class Refused extends Error {
  override readonly name = 'Refused';
  constructor(readonly problem: Problem) {
    super(problem.title);
  }
}

/** No answer came, or one that leaves open what happened: whoever writes asks again with the same key. */
export class NoAnswer extends Error {
  override readonly name = 'NoAnswer';
}

/** @throws Refused, NoAnswer */
export async function ask<T>(path: string, given: Ask = {}): Promise<Answer<T>> {
  const { method = 'GET', query = {}, body, idempotencyKey, ifMatch, actingFor, signal } = given;
  const parameters = new URLSearchParams(
    Object.entries(query).flatMap(([name, value]) => (typeof value === 'string' ? [[name, value]] : value.map((one) => [name, one]))),
  );
  const late = AbortSignal.timeout(PATIENCE_MS);
  let response: Response;
  let text: string;
  try {
    response = await fetch(`${path.startsWith('/console/') ? '' : API}${path}${parameters.size > 0 ? `?${parameters.toString()}` : ''}`, {
      method,
      headers: {
        accept: 'application/json',
        ...(method === 'GET' ? {} : { 'x-threadlog-console': '1' }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(idempotencyKey === undefined ? {} : { 'idempotency-key': idempotencyKey }),
        ...(ifMatch === undefined ? {} : { 'if-match': `"${ifMatch}"` }),
        ...(actingFor === undefined || actingFor === null ? {} : { 'x-agent-id': actingFor }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      credentials: 'same-origin',
      signal: signal === undefined ? late : AbortSignal.any([signal, late]),
    });
    text = await response.text();
  } catch (error) {
    throw new NoAnswer('the server cannot be reached', { cause: error });
  }
  if (!response.ok) throw failureOf(response.status, text);
  const etag = /^"(\d+)"$/.exec(response.headers.get('etag') ?? '')?.[1];
  const { data, meta } = (text === '' ? { data: undefined } : JSON.parse(text)) as Omit<Answer<T>, 'revision'>;
  return { data, ...(meta === undefined ? {} : { meta }), revision: etag === undefined ? null : Number(etag) };
}

function failureOf(status: number, text: string): Refused | NoAnswer {
  let problem: Problem;
  try {
    problem = JSON.parse(text) as Problem;
  } catch {
    // A proxy's own page.
    return new NoAnswer(`status ${status}`);
  }
  const mayHaveHappened = status >= 500 || status === 429 || problem.code === 'idempotency_key_in_flight';
  return mayHaveHappened ? new NoAnswer(problem.title) : new Refused(problem);
}
