import { Controller, Get, Inject, Optional, Res } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { type Kysely, sql } from 'kysely';
import { z } from 'zod';
import { EVENT_STORE, type EventStore, type Position } from '../event-store/event-store.js';
import { About, Answers } from '../http/answers.js';
import { Public } from '../security/auth.guard.js';
import { DATABASE, type Database } from '../database/database.js';
import { Shutdown } from '../http/shutdown.js';
import { OwnWorker } from '../own-worker.js';
import { Checkpoints, type GroupHealth } from '../read-models/checkpoints.js';

/** A store that does not answer within this time counts as unreachable (ms). */
const PATIENCE_MS = 2_000;
/** A projection that is behind and has not moved for this long is stalled (ms). */
const STALLED_MS = 30_000;

const STATUSES = ['ok', 'paused', 'stalled', 'stopped'] as const;
const liveSchema = z.strictObject({ status: z.literal('ok') });
const readySchema = z.strictObject({
  status: z.enum(['ok', 'unavailable']),
  log: z.enum(['ok', 'unreachable']),
  database: z.enum(['ok', 'unreachable']),
  projections: z.array(z.strictObject({ group: z.string(), status: z.enum([...STATUSES, 'filling']), parked: z.number().int() })),
  reactors: z.array(z.strictObject({ reactor: z.string(), status: z.enum(STATUSES), parked: z.number().int() })),
});

/** For load balancers and orchestrators. Its path is not below the API's. */
@Controller('health')
@About('Whether the process answers and its stores do, for those who run it.')
export class HealthController {
  constructor(
    @Inject(EVENT_STORE) private readonly store: EventStore,
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(Checkpoints) private readonly checkpoints: Checkpoints,
    @Inject(Shutdown) private readonly shutdown: Shutdown,
    @Optional() @Inject(OwnWorker) private readonly ownWorker?: OwnWorker,
  ) {}

  /** The process answers. */
  @Get('live')
  @Public()
  @Answers(
    'Tells whether the process answers.',
    'For tools that restart a hung process. Checks no store, so that a store that is away causes no restart.',
    { 200: liveSchema },
  )
  live(): { status: 'ok' } {
    return { status: 'ok' };
  }

  /**
   * Both stores answer, the read models are filled, no projection or reactor stands still, and the process is not about to end. A paused
   * projection or reactor is named as paused, and counts as standing still by the same rule as all others.
   */
  @Get('ready')
  @Public()
  @Answers(
    'Tells whether both stores answer, the read models are filled, no projection or reactor stands still, and the process is not about to end.',
    'For load balancers. Names each store and each group of projections; 503 with the same body when one of them does not work, or while the process is ending.',
    {
      200: readySchema,
      503: readySchema,
    },
  )
  async ready(@Res({ passthrough: true }) reply: FastifyReply): Promise<z.infer<typeof readySchema>> {
    const [log, database, projections, reactors] = await Promise.all([
      within(this.store.head()),
      within(sql`select 1`.execute(this.database)),
      within(this.checkpoints.health()),
      within(this.checkpoints.reactors()),
    ]);
    const head = log.ok ? log.value : undefined;
    const groups = projections.ok ? projections.value : [];
    const reacting = reactors.ok ? reactors.value : [];
    const looked: Looked = { head, workerGone: (this.ownWorker?.awayMs ?? 0) > STALLED_MS };
    const still = [...groups, ...reacting].some((one) => standsStill(one, looked));
    // A new build fills its read models from the log's beginning before it may serve requests. An older build serves them meanwhile.
    const missing = projections.ok ? this.checkpoints.groups.filter((name) => !groups.some(({ group }) => group === name)) : [];
    const filled = missing.length === 0 && groups.every(({ filling }) => !filling);
    const ok = !this.shutdown.begun && log.ok && database.ok && projections.ok && reactors.ok && filled && !still;
    if (!ok) void reply.status(503).header('retry-after', '1');
    return {
      status: ok ? 'ok' : 'unavailable',
      log: log.ok ? 'ok' : 'unreachable',
      database: database.ok ? 'ok' : 'unreachable',
      projections: [
        ...groups.map((one) => {
          const status = statusOf(one, looked);
          return { group: one.group, status: status === 'ok' && one.filling ? ('filling' as const) : status, parked: one.parked };
        }),
        ...missing.map((group) => ({ group, status: 'filling' as const, parked: 0 })),
      ],
      reactors: reacting.map((one) => ({ reactor: one.reactor, status: statusOf(one, looked), parked: one.parked })),
    };
  }
}

type Followed = Pick<GroupHealth, 'position' | 'idleMs' | 'stopped' | 'paused' | 'owner'>;

interface Looked {
  readonly head: Position | 'start' | undefined;
  /** The worker of this process has not come back for long. */
  readonly workerGone: boolean;
}

function standsStill({ position, idleMs, stopped, owner }: Followed, { head, workerGone }: Looked): boolean {
  if (stopped !== null) return true;
  // Nothing may have been appended since, but timers are not done either, unless a worker of another process has taken over.
  if (workerGone && owner === null) return true;
  return head !== undefined && head !== 'start' && (position === 'start' || position < head) && idleMs > STALLED_MS;
}

function statusOf(one: Followed, looked: Looked): (typeof STATUSES)[number] {
  if (one.stopped !== null) return 'stopped';
  if (one.paused) return 'paused';
  return standsStill(one, looked) ? 'stalled' : 'ok';
}

type Outcome<T> = { readonly ok: true; readonly value: T } | { readonly ok: false };

async function within<T>(answer: Promise<T>): Promise<Outcome<T>> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Outcome<T>>((resolve) => {
    timer = setTimeout(() => resolve({ ok: false }), PATIENCE_MS);
  });
  const result = answer.then(
    (value): Outcome<T> => ({ ok: true, value }),
    (): Outcome<T> => ({ ok: false }),
  );
  try {
    return await Promise.race([result, late]);
  } finally {
    clearTimeout(timer);
  }
}
