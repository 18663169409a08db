/** The logger of the runtime; pino's loggers implement it. */
export interface RuntimeLog {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}
