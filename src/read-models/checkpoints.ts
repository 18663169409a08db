import { sql, type Kysely } from 'kysely';
import type { Position, StreamName } from '../event-store/event-store.js';
import type { Database } from '../database/database.js';

/** How often the checkpoints are read while a caller waits (ms). */
const POLL_MS = 5;

/** Number of an organization's parked streams that one read looks at. */
const MOST_PARKED = 100;

/** A group of projections as an operator sees it. */
export interface GroupHealth {
  readonly group: string;
  readonly generation: number;
  readonly position: Position | 'start';
  /** Events handled since the generation was made. */
  readonly events: number;
  /** The worker that has the group; null when none has it. */
  readonly owner: string | null;
  /** Time since the checkpoint last moved, or was found to have nothing to do (ms, on the database's clock). */
  readonly idleMs: number;
  readonly parked: number;
  /** Why the last worker gave up for good; null otherwise. */
  readonly stopped: string | null;
  /** An operator has paused the group. */
  readonly paused: boolean;
  /** The generation is new and has not yet caught up with the log for the first time. */
  readonly filling: boolean;
}

/** A reactor as an operator sees it. */
export type ReactorHealth = Omit<GroupHealth, 'group' | 'generation' | 'filling'> & { readonly reactor: string; readonly logId: string };

/** The open jobs of a kind. */
export interface KindOfJobs {
  readonly kind: string;
  readonly waiting: number;
  /** Time for which the oldest due job has been due (ms, on the database's clock). */
  readonly overdueMs: number;
  readonly mostAttempts: number;
}

/** A generation of a group, live or not, of this or another build. */
export interface GenerationHealth extends Omit<GroupHealth, 'filling'> {
  /** ReadGroup.shape of the build that made the generation. */
  readonly shape: string;
  /** 0; another number for builds that numbered their read models. */
  readonly version: number;
  /** This build reads and writes the generation, or will once it is live. */
  readonly ofThisBuild: boolean;
  readonly live: boolean;
  readonly logId: string;
  /** The stage of a rebuild, or 'filling' for a live generation that has not caught up yet. Null when the generation is complete. */
  readonly phase: 'filling' | 'indexing' | 'catching up' | null;
}

interface Waiter {
  readonly position: Position;
  readonly resolve: (reached: boolean) => void;
  readonly reject: (error: unknown) => void;
}

interface Group {
  /** The greatest position seen so far; a live generation's checkpoint never goes back. */
  position: Position | 'start';
  /** Whether a stream was parked when the checkpoint stood at `position`. */
  parked: boolean;
  /** A worker of this process has the group and reports every step, so that no poll is needed. */
  here: boolean;
  readonly waiters: Set<Waiter>;
}

/**
 * The progress of the read models, for reads that must see an earlier write. All waiters of a process share one poll, and need none while a
 * worker of the same process has the group.
 */
export class Checkpoints {
  readonly #groups = new Map<string, Group>();
  #polling = false;

  /** @param shapes the shapes of this build's groups by name: ReadModels.shapes */
  constructor(
    private readonly database: Kysely<Database>,
    private readonly shapes: ReadonlyMap<string, string>,
  ) {}

  /** The names of this build's groups, including groups that no worker has made yet. */
  get groups(): readonly string[] {
    return [...this.shapes.keys()];
  }

  /** Reads the checkpoint of the group's live generation. */
  async position(group: string): Promise<Position | 'start'> {
    await this.#read([group]);
    return this.#group(group).position;
  }

  /** How far a reactor has come; '' before the first event. Its checkpoint may be half a second behind where nothing was to be done. */
  async ofReactor(name: string): Promise<string> {
    const row = await this.database.selectFrom('keep.reactors').select('position').where('name', '=', name).executeTakeFirst();
    return row?.position ?? '';
  }

  /**
   * Waits until the group's rows include all events up to a position, except those of parked streams.
   * @throws the database's error when the checkpoints cannot be read
   */
  async waitFor(group: string, position: Position, timeoutMs: number): Promise<'reached' | 'behind'> {
    const state = this.#group(group);
    return includes(state.position, position) || (await this.#wait(state, position, timeoutMs)) ? 'reached' : 'behind';
  }

  /**
   * The organization's streams that were parked at or before a position that the group has reached. Sends no query while no stream is
   * parked.
   */
  async parked(group: string, organizationId: string, position: Position): Promise<readonly StreamName[]> {
    // The row that parks a stream is committed with the checkpoint that passes the event, and both are read together.
    if (!this.#group(group).parked) return [];
    const rows = await this.database
      .selectFrom('keep.parked as p')
      .innerJoin('read.checkpoints as c', (join) =>
        join.onRef('c.generation', '=', 'p.generation').onRef('c.group_name', '=', 'p.group_name'),
      )
      .select('p.stream')
      .where('p.group_name', '=', group)
      .where('p.position', '<=', position)
      .where(sql`substring(p.stream from '^[a-z]+-([^.]+)[.]')`, '=', organizationId)
      .where('c.live', '=', true)
      .where('c.version', '=', 0)
      .where('c.shape', 'in', this.#shapesOf([group]))
      .orderBy('p.position', 'desc')
      .limit(MOST_PARKED)
      .execute();
    return rows.map(({ stream }) => stream as StreamName);
  }

  /** Records that a worker of this process has committed all events up to a position, except those of parked streams. */
  advanced(group: string, position: Position | 'start', parked: boolean): void {
    const state = this.#group(group);
    state.here = true;
    this.#reached(state, position, parked);
  }

  /** Records that no worker of this process has the group any more; another process may go on with it. */
  left(group: string): void {
    const state = this.#group(group);
    state.here = false;
    if (state.waiters.size > 0) this.#startPolling();
  }

  /** All groups of this build. */
  async health(): Promise<GroupHealth[]> {
    const live = (await this.generations()).filter((one) => one.live && one.ofThisBuild);
    return live.map(({ group, generation, position, events, owner, idleMs, parked, stopped, paused, phase }) => ({
      group,
      generation,
      position,
      events,
      owner,
      idleMs,
      parked,
      stopped,
      paused,
      filling: phase !== null,
    }));
  }

  /** All installed reactors, by name. */
  async reactors(): Promise<ReactorHealth[]> {
    const rows = await this.database
      .selectFrom('keep.reactors as r')
      .select(['r.name', 'r.log_id', 'r.position', 'r.events', 'r.stopped', 'r.paused'])
      .select(sql<string | null>`case when r.lease_until > clock_timestamp() then r.owner end`.as('owner'))
      .select(sql<number>`(extract(epoch from clock_timestamp() - r.progress_at) * 1000)::bigint`.as('idle_ms'))
      .select(sql<number>`(select count(*) from keep.parked p where p.group_name = r.name and p.generation = 0)`.as('parked'))
      .orderBy('r.name')
      .execute();
    return rows.map(({ name, log_id: logId, idle_ms: idleMs, position, ...row }) => ({
      reactor: name,
      logId,
      idleMs,
      position: positionFrom(position),
      ...row,
    }));
  }

  /** The open jobs, by kind. */
  async jobs(): Promise<KindOfJobs[]> {
    const { rows } = await sql<{ kind: string; waiting: number; overdue: number; attempts: number }>`
      select kind, count(*) as waiting, max(attempt) as attempts,
        greatest(0, extract(epoch from clock_timestamp() - min(due_at) filter (where head)) * 1000)::bigint as overdue
      from keep.jobs group by kind order by kind`.execute(this.database);
    return rows.map(({ kind, waiting, overdue, attempts }) => ({ kind, waiting, overdueMs: overdue, mostAttempts: attempts }));
  }

  /** All generations by group: this build's first, and live ones before others. */
  async generations(): Promise<GenerationHealth[]> {
    const rows = await this.database
      .selectFrom('read.checkpoints as c')
      .select([
        'c.group_name',
        'c.generation',
        'c.version',
        'c.shape',
        'c.live',
        'c.log_id',
        'c.position',
        'c.events',
        'c.stopped',
        'c.paused',
        'c.phase',
      ])
      .select(sql<string | null>`case when c.lease_until > clock_timestamp() then c.owner end`.as('owner'))
      .select(sql<number>`(extract(epoch from clock_timestamp() - c.progress_at) * 1000)::bigint`.as('idle_ms'))
      .select(
        sql<number>`(select count(*) from keep.parked p where p.group_name = c.group_name and p.generation = c.generation)`.as('parked'),
      )
      .orderBy('c.group_name')
      .orderBy('c.live', 'desc')
      .orderBy('c.generation')
      .execute();
    const found = rows.map((row) => ({
      group: row.group_name,
      generation: row.generation,
      position: positionFrom(row.position),
      events: row.events,
      owner: row.owner,
      idleMs: row.idle_ms,
      parked: row.parked,
      stopped: row.stopped,
      paused: row.paused,
      version: row.version,
      shape: row.shape,
      ofThisBuild: row.version === 0 && row.shape === this.shapes.get(row.group_name),
      live: row.live,
      logId: row.log_id,
      phase: row.phase,
    }));
    const rank = (one: { readonly group: string; readonly ofThisBuild: boolean }) => `${one.group} ${one.ofThisBuild ? 0 : 1}`;
    return found.sort((a, b) => (rank(a) < rank(b) ? -1 : rank(a) > rank(b) ? 1 : 0));
  }

  #group(name: string): Group {
    let group = this.#groups.get(name);
    if (group === undefined) this.#groups.set(name, (group = { position: 'start', parked: false, here: false, waiters: new Set() }));
    return group;
  }

  #wait(group: Group, position: Position, timeoutMs: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => done(() => resolve(false)), timeoutMs);
      const done = (settle: () => void) => {
        clearTimeout(timer);
        group.waiters.delete(waiter);
        settle();
      };
      const waiter: Waiter = {
        position,
        resolve: (reached) => done(() => resolve(reached)),
        reject: (error) => done(() => reject(error instanceof Error ? error : new Error(String(error)))),
      };
      group.waiters.add(waiter);
      if (!group.here) this.#startPolling();
    });
  }

  #reached(group: Group, position: Position | 'start', parked: boolean): void {
    group.position = position;
    group.parked = parked;
    for (const waiter of group.waiters) if (includes(position, waiter.position)) waiter.resolve(true);
  }

  #startPolling(): void {
    if (this.#polling) return;
    this.#polling = true;
    void this.#poll();
  }

  async #poll(): Promise<void> {
    for (;;) {
      const waited = [...this.#groups].filter(([, group]) => group.waiters.size > 0 && !group.here);
      if (waited.length === 0) {
        // In the same turn as the check. Otherwise a waiter that came in between would rely on a poll that has ended.
        this.#polling = false;
        return;
      }
      try {
        await this.#read(waited.map(([name]) => name));
      } catch (error) {
        for (const [, group] of waited) for (const waiter of group.waiters) waiter.reject(error);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async #read(groups: readonly string[]): Promise<void> {
    const rows = await this.database
      .selectFrom('read.checkpoints as c')
      .select(['group_name', 'position'])
      .select(
        sql<boolean>`exists (select from keep.parked p where p.group_name = c.group_name and p.generation = c.generation)`.as('parked'),
      )
      .where('version', '=', 0)
      .where('live', '=', true)
      .where('group_name', 'in', groups)
      .where('shape', 'in', this.#shapesOf(groups))
      .execute();
    for (const row of rows) {
      const group = this.#group(row.group_name);
      // A worker of this process may have moved on while the answer was under way.
      if (!group.here || !includes(group.position, row.position)) this.#reached(group, positionFrom(row.position), row.parked);
    }
  }

  /** The groups' shapes. A shape covers all tables of a group, so no two groups have the same shape. */
  #shapesOf(groups: readonly string[]): string[] {
    return groups.map((group) => this.shapes.get(group) ?? '');
  }
}

function includes(reached: Position | 'start', wanted: string): boolean {
  return reached !== 'start' && reached >= wanted;
}

function positionFrom(text: string): Position | 'start' {
  return text === '' ? 'start' : (text as Position);
}
