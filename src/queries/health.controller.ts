import { Controller, Get, Inject, Res } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { type Kysely, sql } from 'kysely';
import { z } from 'zod';
import { EVENT_STORE, type EventStore } from '../event-store/event-store.js';
import { Answers } from '../platform/answers.js';
import { Public } from '../platform/auth.guard.js';
import { DATABASE, type Database } from '../platform/database.js';
import { Shutdown } from '../platform/shutdown.js';
import { Checkpoints } from './checkpoints.js';

/** A store that does not answer within this time is counted as unreachable (ms). */
const PATIENCE_MS = 2_000;
/** A projection that is behind and has not moved for so long is stalled (ms). */
const STALLED_MS = 30_000;

const liveSchema = z.strictObject({ status: z.literal('ok') });
const readySchema = z.strictObject({
  status: z.enum(['ok', 'unavailable']),
  log: z.enum(['ok', 'unreachable']),
  database: z.enum(['ok', 'unreachable']),
  projections: z.array(
    z.strictObject({ group: z.string(), status: z.enum(['ok', 'filling', 'paused', 'stalled', 'stopped']), parked: z.number().int() }),
  ),
});

/** For load balancers and orchestrators; not below the API's path. */
@Controller('health')
export class HealthController {
  constructor(
    @Inject(EVENT_STORE) private readonly store: EventStore,
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(Checkpoints) private readonly checkpoints: Checkpoints,
    @Inject(Shutdown) private readonly shutdown: Shutdown,
  ) {}

  /** The process answers. */
  @Get('live')
  @Public()
  @Answers('Tells whether the process answers.', { 200: liveSchema })
  live(): { status: 'ok' } {
    return { status: 'ok' };
  }

  /**
   * Both stores answer, the read models are filled, no projection stands still, and the process is not about to end. A paused one is named, and
   * counts as standing still like any other.
   */
  @Get('ready')
  @Public()
  @Answers(
    'Tells whether both stores answer, the read models are filled, no projection stands still, and the process is not about to end.',
    {
      200: readySchema,
      503: readySchema,
    },
  )
  async ready(@Res({ passthrough: true }) reply: FastifyReply): Promise<z.infer<typeof readySchema>> {
    const [log, database, projections] = await Promise.all([
      within(this.store.head()),
      within(sql`select 1`.execute(this.database)),
      within(this.checkpoints.health()),
    ]);
    const head = log.ok ? log.value : undefined;
    const groups = projections.ok ? projections.value : [];
    const stalled = groups.filter(
      ({ position, idleMs, stopped }) =>
        stopped !== null || (head !== undefined && head !== 'start' && (position === 'start' || position < head) && idleMs > STALLED_MS),
    );
    // A new build's read models are made from the log's beginning before it may be asked for them; an older one answers meanwhile.
    const missing = projections.ok ? this.checkpoints.groups.filter((name) => !groups.some(({ group }) => group === name)) : [];
    const filled = missing.length === 0 && groups.every(({ filling }) => !filling);
    const ok = !this.shutdown.begun && log.ok && database.ok && projections.ok && filled && stalled.length === 0;
    if (!ok) void reply.status(503).header('retry-after', '1');
    return {
      status: ok ? 'ok' : 'unavailable',
      log: log.ok ? 'ok' : 'unreachable',
      database: database.ok ? 'ok' : 'unreachable',
      projections: [
        ...groups.map(
          ({ group, parked, stopped, paused, filling }) =>
            ({
              group,
              status:
                stopped !== null
                  ? 'stopped'
                  : paused
                    ? 'paused'
                    : stalled.some((one) => one.group === group)
                      ? 'stalled'
                      : filling
                        ? 'filling'
                        : 'ok',
              parked,
            }) as const,
        ),
        ...missing.map((group) => ({ group, status: 'filling', parked: 0 }) as const),
      ],
    };
  }
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
