import pg from 'pg';

/**
 * True when the server answered the statement with an error, so that its transaction is certainly rolled back. Any other failure, a FATAL
 * message included, may have come after the commit.
 */
export function isRolledBack(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.severity === 'ERROR';
}

/** Classes of SQLSTATE that concern the server's state and not the statement: trying again may help. */
const TRANSIENT = ['08', '25', '40', '53', '55', '57', '58', 'XX'];

/** False only when the same statement would fail again. */
export function isTransient(error: unknown): boolean {
  if (!(error instanceof pg.DatabaseError) || error.code === undefined) return true;
  return TRANSIENT.includes(error.code.slice(0, 2));
}

/** True when the connection is useless: it broke, or its server no longer takes writes (25006: it is a standby now). */
export function isConnectionLost(error: unknown): boolean {
  if (!(error instanceof pg.DatabaseError)) return true;
  return error.severity !== 'ERROR' || (error.code ?? '').startsWith('25') || (error.code ?? '').startsWith('08');
}

export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return error.errors.map(messageOf).join(', ');
  return error instanceof Error ? error.message : String(error);
}
