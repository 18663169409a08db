import { type DestinationStream, type Logger, pino } from 'pino';

/** Paths that are removed from every logged object. Message texts are never given to the logger at all. */
const SECRETS = [
  'req.headers.authorization',
  'req.headers["x-api-key"]',
  'req.headers.cookie',
  'headers.authorization',
  'headers["x-api-key"]',
  'password',
  '*.password',
  'key',
  '*.key',
  'secret',
  '*.secret',
  'token',
  '*.token',
];

/** What a part of the program logs. */
export type Log = Pick<Logger, 'info' | 'warn' | 'error'>;

/** Nest's injection token for the Log of this process. */
export const LOGGER = Symbol('Logger');

/** Structured logs: one JSON object a line, on standard output. */
export function createLogger(level: string, destination?: DestinationStream): Logger {
  const options = { level, base: undefined, timestamp: pino.stdTimeFunctions.isoTime, redact: { paths: SECRETS, censor: '…' } };
  return pino(options, destination ?? standardOutput());
}

/** Standard output. When lines cannot be written, to a closed terminal or a full disk, they pile up to a limit and are then dropped. */
function standardOutput(): DestinationStream {
  const stream = pino.destination({ dest: 1, sync: true, maxLength: 1024 * 1024 });
  stream.on('error', () => undefined);
  return stream;
}
