import { ERRORS, ThreadlogError } from '../src/errors.js';

/** The command was refused for what it asks: asked again it would be refused again. */
export function isRefused(error: unknown): error is ThreadlogError {
  return error instanceof ThreadlogError && ERRORS[error.code].status < 500 && error.code !== 'concurrent_changes';
}
