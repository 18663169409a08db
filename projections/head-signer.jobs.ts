import type { Kysely } from 'kysely';
import { z } from 'zod';
import type { EventStore, Position } from '../src/event-store/event-store.js';
import { addHead, headAggregate, HEAD_STREAM, HeadKey, HistoryChanged } from '../src/event-store/log-head.js';
import type { Transactor } from '../src/commands/transactor.js';
import type { Database } from '../src/database/database.js';
import { derivedId } from '../src/ids.js';
import type { MasterKey } from '../src/security/sealing.js';
import type { JobKind } from './runtime/job-runner.js';
import { stopReactor } from './runtime/lease.js';
import type { RuntimeLog } from './runtime/runtime-log.js';

export const SIGN_HEAD = 'sign-log-head';

const payloadSchema = z.strictObject({ count: z.number().int(), fold: z.string(), position: z.string() });
export type SignHeadPayload = z.infer<typeof payloadSchema>;

/**
 * Appends a signed head. If several attempts or processes sign the same head, one event results: the fold is the same everywhere, and the
 * command's id derives from the count.
 */
export function signHeadJobs(parts: {
  readonly store: EventStore;
  readonly transactor: Transactor;
  readonly masterKey: MasterKey;
  readonly database: Kysely<Database>;
  readonly log: RuntimeLog;
  /** Name of the reactor that adds these jobs. The handler stops it when the history has changed. */
  readonly reactor: string;
}): JobKind {
  const { store, transactor, masterKey, database, log, reactor } = parts;
  const key = new HeadKey(masterKey);
  return {
    kind: SIGN_HEAD,
    backoff: { first: 200, longest: 10_000 },
    async handle({ payload }) {
      const { count, fold, position } = payloadSchema.parse(payload);
      const commandId = derivedId('log-head', store.log.id, String(count));
      const context = {
        organizationId: HEAD_STREAM.organizationId,
        actor: { type: 'system', id: 'head-signer' } as const,
        commandId,
        requestHash: '',
        correlationId: commandId,
        causationDepth: 1,
      };
      const head = key.sign({ count, fold, position: position as Position }, store.log.id);
      try {
        const { outcome } = await transactor.transact(headAggregate, HEAD_STREAM.id, context, addHead(head));
        if (outcome === 'appended') log.info({ count, fold, position }, 'head of the log signed');
        return 'done';
      } catch (error) {
        if (!(error instanceof HistoryChanged)) throw error;
        await stopReactor(database, reactor, error.message);
        return { gaveUp: `${error.message}; no more heads are signed, and threadlog verify tells more` };
      }
    },
  };
}
