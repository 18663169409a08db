import { ThreadlogError } from '../errors.js';

/** Questions of an organization that run at once in a process. */
export const QUESTIONS_OF_ORGANIZATION = 2;
/** How long a further one waits for its turn (ms). */
const PATIENCE_MS = 2_000;

/**
 * Who may ask the database a question now. The sessions for questions are few and a question may take long, so an organization that asks many
 * slow ones would otherwise keep all sessions from the others. Its questions wait here, where they hold no session.
 */
export class QuestionTurns {
  readonly #running = new Map<string, number>();
  readonly #waiting = new Map<string, Set<() => void>>();

  constructor(private readonly patienceMs = PATIENCE_MS) {}

  /**
   * Runs a question when it is its turn, in the order in which they came.
   * @throws ThreadlogError rate_limited when others of the organization take too long
   */
  async inTurn<T>(organizationId: string, ask: () => Promise<T>): Promise<T> {
    const running = this.#running.get(organizationId) ?? 0;
    if (running < QUESTIONS_OF_ORGANIZATION) this.#running.set(organizationId, running + 1);
    else await this.#turn(organizationId);
    try {
      return await ask();
    } finally {
      this.#passOn(organizationId);
    }
  }

  async #turn(organizationId: string): Promise<void> {
    const waiting = this.#waiting.get(organizationId) ?? new Set();
    this.#waiting.set(organizationId, waiting);
    await new Promise<void>((resolve, reject) => {
      const begin = () => {
        clearTimeout(patience);
        resolve();
      };
      const patience = setTimeout(() => {
        this.#leave(organizationId, waiting, begin);
        const detail = `${QUESTIONS_OF_ORGANIZATION} searches or analyses of the organization are running already`;
        reject(new ThreadlogError('rate_limited', detail, { retryAfterSeconds: Math.ceil(PATIENCE_MS / 1_000) }));
      }, this.patienceMs);
      waiting.add(begin);
    });
  }

  /** The place of one that has ended goes to the next, without being free between. */
  #passOn(organizationId: string): void {
    const waiting = this.#waiting.get(organizationId);
    for (const begin of waiting ?? []) {
      if (waiting !== undefined) this.#leave(organizationId, waiting, begin);
      begin();
      return;
    }
    const left = (this.#running.get(organizationId) ?? 1) - 1;
    if (left > 0) this.#running.set(organizationId, left);
    else this.#running.delete(organizationId);
  }

  #leave(organizationId: string, waiting: Set<() => void>, begin: () => void): void {
    waiting.delete(begin);
    if (waiting.size === 0) this.#waiting.delete(organizationId);
  }
}
