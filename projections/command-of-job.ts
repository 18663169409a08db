import { ERRORS, ThreadlogError } from '../src/errors.js';

/** Whether a command was refused because of its content, so that it would be refused again. */
export function isRefused(error: unknown): error is ThreadlogError {
  return error instanceof ThreadlogError && ERRORS[error.code].status < 500 && error.code !== 'concurrent_changes';
}
