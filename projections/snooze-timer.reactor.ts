import type { CommandBus } from '@nestjs/cqrs';
import type { Kysely } from 'kysely';
import { WakeConversation } from '../src/conversations/conversation.commands.js';
import { conversationsTable } from '../src/conversations/conversation.table.js';
import type { Database } from '../src/platform/database.js';
import { ThreadlogError } from '../src/platform/errors.js';
import { derivedId } from '../src/platform/ids.js';
import { pause } from '../src/platform/pause.js';
import type { ReadModels } from '../src/read-models/read-models.js';
import type { RuntimeLog } from './runtime/runtime-log.js';

/** How often due snoozes are looked for (ms). */
const LOOK_MS = 500;
const AT_ONCE = 100;

/**
 * Wakes conversations whose snooze is over. What it reads may be behind: the command's id derives from the event that set the snooze, and
 * the decision does nothing unless that snooze is still in force, so waking twice, late or by two processes at once leaves one event.
 */
export class SnoozeTimer {
  /** Conversations that need no look before an instant (ms): just woken, or refused. */
  readonly #resting = new Map<string, number>();

  constructor(
    private readonly options: {
      readonly database: Kysely<Database>;
      readonly readModels: ReadModels;
      readonly commands: CommandBus;
      /** The clock that all processes share (ms): one whose own is wrong wakes nobody early, or late. */
      readonly now: () => Promise<number>;
      readonly log: RuntimeLog;
    },
  ) {}

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let woken = 0;
      try {
        woken = await this.wakeDue();
      } catch (error) {
        this.options.log.warn({ error: String(error) }, 'due snoozes could not be looked for, trying again');
      }
      if (woken < AT_ONCE) await pause(LOOK_MS, signal);
    }
  }

  /** One look: wakes up to AT_ONCE conversations and answers how many commands it sent. */
  async wakeDue(): Promise<number> {
    const now = await this.options.now();
    for (const [id, until] of this.#resting) if (until <= now) this.#resting.delete(id);
    const due = await this.options.database
      .selectFrom(this.options.readModels.view(conversationsTable).as('c'))
      .select(['organization_id', 'id', 'snooze_revision'])
      .where('snooze_due_at', '<=', now)
      .orderBy('snooze_due_at')
      .limit(AT_ONCE + this.#resting.size)
      .execute();
    const fresh = due.filter(({ id }) => !this.#resting.has(id)).slice(0, AT_ONCE);
    await Promise.all(fresh.map((row) => this.#wake(row.organization_id, row.id, row.snooze_revision ?? -1, now)));
    return fresh.length;
  }

  async #wake(organizationId: string, id: string, snoozeRevision: number, now: number): Promise<void> {
    const commandId = derivedId('wake', organizationId, id, String(snoozeRevision));
    const context = {
      organizationId,
      actor: { type: 'system', id: 'snooze-timer' } as const,
      commandId,
      requestHash: '',
      correlationId: commandId,
      causationDepth: 1,
    };
    try {
      await this.options.commands.execute(new WakeConversation(context, id, snoozeRevision, now));
      // The row shows the wake once the projection has it; asking again until then would be work for nothing.
      this.#resting.set(id, now + 5_000);
    } catch (error) {
      this.#resting.set(id, now + 30_000);
      const code = error instanceof ThreadlogError ? error.code : 'internal_error';
      this.options.log.warn({ conversationId: id, code, error: String(error) }, 'a snoozed conversation could not be woken, trying again');
    }
  }
}
