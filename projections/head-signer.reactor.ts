import { z } from 'zod';
import type { EventStore, Position } from '../src/event-store/event-store.js';
import { headAggregate, HEAD_STREAM, HeadKey, HistoryChanged, type LogFold, LOG_START, nextFold } from '../src/event-store/log-head.js';
import type { Transactor } from '../src/commands/transactor.js';
import type { MasterKey } from '../src/security/sealing.js';
import { SIGN_HEAD, type SignHeadPayload } from './head-signer.jobs.js';
import type { Beginning, Reactor } from './runtime/reactor.js';

/** Number of events from one signed head to the next. */
const EVERY = 10_000;

export const HEAD_SIGNER = 'head-signer';

const folded = z.object({ count: z.number().int(), fold: z.string() });
const stateSchema = z.object({
  at: folded.extend({ position: z.string() }),
  /** A head that the log held when the fold began. The fold over as many events must equal it, and its events are not signed again. */
  signed: folded,
});
type State = z.infer<typeof stateSchema>;

/**
 * Folds the whole log, and adds a job for the head at every 10,000th event. The fold is stored with the checkpoint, so that only the events
 * after the checkpoint are read after a start or a takeover.
 */
export function headSigner(parts: {
  readonly store: EventStore;
  readonly transactor: Transactor;
  readonly masterKey: MasterKey;
  /** Number of events from one head to the next; more than 1, since a head is an event too. */
  readonly every?: number;
}): Reactor {
  const { every = EVERY } = parts;
  return {
    name: HEAD_SIGNER,
    begins: () => begins(parts),
    jobs: [SIGN_HEAD],
    reaction: {
      reads: 'stored',
      handle(events, consequences, kept) {
        const { at: before, signed } = stateSchema.parse(kept);
        let at: LogFold = { ...before, position: before.position as Position };
        for (const event of events) {
          at = nextFold(at, event);
          const { count, fold, position } = at;
          if (count === signed.count && fold !== signed.fold)
            throw new HistoryChanged(`the first ${count} events of the log are not those that its head was signed over`);
          if (count <= signed.count || count % every !== 0) continue;
          const payload: SignHeadPayload = { count, fold, position };
          consequences.add({ kind: SIGN_HEAD, key: String(count), organizationId: HEAD_STREAM.organizationId, payload });
        }
        if (events.length > 0) consequences.keep({ at, signed } satisfies State);
      },
    },
  };
}

/**
 * Begins after the last head if this log made it: a copy of another log has the other log's heads, but different positions. Without such a
 * head, or with a head that another key signed, the log is folded from its beginning, and the fold must match the head.
 */
async function begins({ store, transactor, masterKey }: Parameters<typeof headSigner>[0]): Promise<Beginning> {
  const last = (await transactor.load(headAggregate, HEAD_STREAM.organizationId, HEAD_STREAM.id))?.state.last ?? null;
  const signed = last === null ? LOG_START : { count: last.count, fold: last.fold };
  const own = last !== null && last.log === store.log.id && new HeadKey(masterKey).signed(last);
  const at = own ? { count: last.count, fold: last.fold, position: last.position as Position } : LOG_START;
  return { position: at.position, state: { at, signed } satisfies State };
}
