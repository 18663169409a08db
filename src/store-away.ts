import { ThreadlogError } from './errors.js';
import { StoreUnavailable } from './event-store/event-store.js';

/** PostgreSQL's SQLSTATE classes for a broken connection (08), exhausted resources (53) and operator actions such as a shutdown (57). */
const SERVER_AWAY = /^(08|53|57)[0-9A-Z]{3}$/;
/** Error codes of Node's sockets and name resolution. */
const NETWORK_AWAY = /^(ECONN|ETIMEDOUT|EPIPE|ENOTFOUND|EAI_AGAIN)/;
/** Messages of node-postgres for a connection that failed or broke. When no system call failed, its errors have no code. */
const CONNECTION_LOST = /timeout exceeded when trying to connect|Connection terminated|Client has encountered a connection error/;

/**
 * Whether an error means that the log or the database is away or short of resources. Such an error passes by itself and was not caused by
 * the request. An append with an unknown outcome (OutcomeUnknown) is not among these errors: the API answers it differently.
 *
 * Two places ask other questions and answer them themselves. The PostgreSQL log asks whether a statement was certainly rolled back, and
 * takes any unknown error as uncertain (event-store/postgres/postgres-errors.ts). The embedded PostgreSQL asks whether its own server is
 * shutting down, where a refused connection does not tell yet (embedded-postgres/embedded-postgres.ts).
 */
export function isStoreAway(error: unknown): boolean {
  if (error instanceof StoreUnavailable) return true;
  if (!(error instanceof Error)) return false;
  const { code } = error as { code?: unknown };
  return (typeof code === 'string' && (SERVER_AWAY.test(code) || NETWORK_AWAY.test(code))) || CONNECTION_LOST.test(error.message);
}

/** The API's answer while a store is away. */
export const storeUnavailable = (cause: Error): ThreadlogError =>
  new ThreadlogError('store_unavailable', undefined, { retryAfterSeconds: 1 }, { cause });
