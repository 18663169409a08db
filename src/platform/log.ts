import { type DestinationStream, type Logger, pino } from 'pino';

/** Paths that never reach the log, whoever logs an object that has them. Message texts are never handed to the logger at all. */
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

/** Structured logs: one JSON object a line, on standard output. */
export function createLogger(level: string, destination?: DestinationStream): Logger {
  const options = { level, base: undefined, timestamp: pino.stdTimeFunctions.isoTime, redact: { paths: SECRETS, censor: '…' } };
  return destination === undefined ? pino(options) : pino(options, destination);
}
