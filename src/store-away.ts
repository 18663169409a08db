import { ThreadlogError } from './errors.js';
import { StoreUnavailable } from './event-store/event-store.js';

/** PostgreSQL's SQLSTATE classes of a broken connection (08), resources that ran out (53) and an operator's doing, such as a shutdown (57). */
const SERVER_AWAY = /^(08|53|57)[0-9A-Z]{3}$/;
/** Codes of Node's sockets and of its look-up of names. */
const NETWORK_AWAY = /^(ECONN|ETIMEDOUT|EPIPE|ENOTFOUND|EAI_AGAIN)/;
/** What node-postgres says of a connection that could not be made or broke; where no system call failed, it gives no code. */
const CONNECTION_LOST = /timeout exceeded when trying to connect|Connection terminated|Client has encountered a connection error/;

/**
 * Whether an error says that the log or the database is away, or short of what it needs: that passes by itself, and says nothing of what was
 * asked. An append whose outcome is not known (OutcomeUnknown) is not among these: the API answers it otherwise.
 *
 * Two places ask another question and answer it themselves. The PostgreSQL log asks whether a statement was rolled back for certain, and takes
 * any error that it does not know for one after which nothing is certain (event-store/postgres/postgres-errors.ts). The embedded PostgreSQL
 * asks whether a server of its own is on its way down, where a refused connection tells nothing yet (embedded-postgres/embedded-postgres.ts).
 */
export function isStoreAway(error: unknown): boolean {
  if (error instanceof StoreUnavailable) return true;
  if (!(error instanceof Error)) return false;
  const { code } = error as { code?: unknown };
  return (typeof code === 'string' && (SERVER_AWAY.test(code) || NETWORK_AWAY.test(code))) || CONNECTION_LOST.test(error.message);
}

/** What the API answers while a store is away. */
export const storeUnavailable = (cause: Error): ThreadlogError =>
  new ThreadlogError('store_unavailable', undefined, { retryAfterSeconds: 1 }, { cause });
