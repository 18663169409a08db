import { type Kysely, sql } from 'kysely';

// Each statement after the lock needs its own snapshot, so the functions are VOLATILE (the default) and need READ COMMITTED.
// Plans that were made while the table was empty must not scan a full table.
const PLANS = sql`set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off`;

/** The tables of reactors and jobs. They cannot be derived from the log, since they record what has already been caused. */
export async function up(db: Kysely<unknown>): Promise<void> {
  // Columns that read.checkpoints also has mean the same here.
  await sql`
    create table keep.reactors (
      name text primary key,
      log_id text not null,
      -- '' before the first event
      position text collate "C" not null,
      events bigint not null default 0,
      epoch integer not null default 0,
      owner text,
      lease_until timestamptz not null default '-infinity',
      progress_at timestamptz not null default now(),
      stopped text,
      paused boolean not null default false,
      -- small, and the reactor's own; written with the checkpoint
      state jsonb,
      installed_at timestamptz not null default now()
    ) with (fillfactor = 20)`.execute(db);

  await sql`
    create table keep.jobs (
      id bigint generated always as identity primary key,
      kind text not null,
      -- the same again of a kind is the same job
      key text not null,
      -- jobs of a lane are done one after the other, by id; null: no order
      lane text,
      -- it may be done: the first of its lane, or of none. Kept here, so that whoever takes jobs need not look at those that wait behind others
      head boolean not null,
      organization_id text not null,
      payload jsonb not null,
      due_at timestamptz not null,
      -- how often it was taken. With the id it proves whose job it is: it rises with every taker.
      attempt integer not null default 0,
      owner text,
      leased_until timestamptz,
      -- why the last attempt failed
      error text,
      created_at timestamptz not null default now(),
      unique (kind, key)
    ) with (fillfactor = 70)`.execute(db);
  await sql`create index jobs_due on keep.jobs (due_at, id) where head`.execute(db);
  await sql`create index jobs_lane on keep.jobs (lane, id) where lane is not null`.execute(db);

  // An empty lane has no row that could be locked, and a lock for each lane of a large batch would fill the server's lock table. So lanes
  // share 256 locks, always taken in the same order.
  await sql`
    create function keep.lock_lanes(p_lanes text[]) returns void language plpgsql as $$
    declare v_lock integer;
    begin
      for v_lock in select distinct hashtext(lane) & 255 from unnest(p_lanes) lane where lane is not null order by 1 loop
        perform pg_advisory_xact_lock(730580621, v_lock);
      end loop;
    end
    $$`.execute(db);

  // Takes the lanes' locks.
  await sql`
    create function keep.promote_jobs(p_lanes text[]) returns void language plpgsql ${PLANS} as $$
    begin
      update keep.jobs j set head = true
      from unnest(p_lanes) l(lane)
      cross join lateral (select id from keep.jobs where lane = l.lane order by id limit 1) first
      where j.id = first.id and not j.head;
    end
    $$`.execute(db);

  // Adds jobs: {kind, key, lane, organization_id, payload, due_ms | delay_ms}. A lane's jobs are given in the order in which they are to be
  // done. A job that already exists stays as it is.
  await sql`
    create function keep.add_jobs(p_jobs jsonb, p_now timestamptz) returns integer language plpgsql ${PLANS} as $$
    declare
      v_now timestamptz := coalesce(p_now, clock_timestamp());
      v_added integer;
    begin
      perform keep.lock_lanes(array(select distinct lane from jsonb_to_recordset(p_jobs) given(lane text)));
      with given as (
        select distinct on (kind, key) *
        from rows from (
          jsonb_to_recordset(p_jobs) as (kind text, key text, lane text, organization_id text, payload jsonb, due_ms float8, delay_ms float8)
        ) with ordinality as g(kind, key, lane, organization_id, payload, due_ms, delay_ms, nr)
        order by kind, key, nr
      ), fresh as (
        select * from given g where not exists (select from keep.jobs j where j.kind = g.kind and j.key = g.key)
      )
      insert into keep.jobs (kind, key, lane, head, organization_id, payload, due_at)
      select kind, key, lane,
        lane is null
          or (row_number() over (partition by lane order by nr) = 1 and not exists (select from keep.jobs j where j.lane = f.lane)),
        organization_id, payload,
        coalesce(to_timestamp(due_ms / 1000), v_now + coalesce(delay_ms, 0) * interval '1 ms')
      from fresh f order by nr
      on conflict (kind, key) do nothing;
      get diagnostics v_added = row_count;
      return v_added;
    end
    $$`.execute(db);

  // A lease that ends further ahead than any lease can was taken before the clock was set back.
  await sql`
    create function keep.take_jobs(p_kinds text[], p_most integer, p_owner text, p_lease interval, p_now timestamptz)
    returns setof keep.jobs language plpgsql ${PLANS} as $$
    declare
      v_clock timestamptz := clock_timestamp();
      v_now timestamptz := coalesce(p_now, v_clock);
    begin
      return query
        with due as materialized (
          select id from keep.jobs
          where head and due_at <= v_now and kind = any (p_kinds)
            and (leased_until is null or leased_until < v_clock or leased_until > v_clock + 2 * p_lease)
          order by due_at, id limit p_most
          for update skip locked
        )
        update keep.jobs j set owner = p_owner, leased_until = v_clock + p_lease, attempt = j.attempt + 1
        from due where j.id = due.id
        returning j.*;
    end
    $$`.execute(db);

  // Removes finished jobs that their takers still have, and frees the next jobs of their lanes. The commit does not wait for the disk: a
  // server crash may bring a finished job back, as it may bring back a job that was under way. Answers the removed jobs.
  await sql`
    create function keep.finish_jobs(p_ids bigint[], p_attempts integer[]) returns setof bigint language plpgsql ${PLANS} as $$
    declare
      v_lanes text[];
    begin
      perform set_config('synchronous_commit', 'off', true);
      -- A job's lane never changes, so it may be read before the lock.
      v_lanes := array(select distinct lane from keep.jobs where id = any (p_ids) and lane is not null);
      perform keep.lock_lanes(v_lanes);
      return query
        delete from keep.jobs j using unnest(p_ids, p_attempts) done(id, attempt)
        where j.id = done.id and j.attempt = done.attempt returning j.id;
      perform keep.promote_jobs(v_lanes);
    end
    $$`.execute(db);

  // Removes jobs that are no longer needed, whoever has them.
  await sql`
    create function keep.remove_jobs(p_kinds text[], p_keys text[]) returns void language plpgsql ${PLANS} as $$
    declare
      v_lanes text[];
    begin
      v_lanes := array(
        select distinct j.lane from keep.jobs j join unnest(p_kinds, p_keys) gone(kind, key) on j.kind = gone.kind and j.key = gone.key
        where j.lane is not null);
      perform keep.lock_lanes(v_lanes);
      delete from keep.jobs j using unnest(p_kinds, p_keys) gone(kind, key) where j.kind = gone.kind and j.key = gone.key;
      perform keep.promote_jobs(v_lanes);
    end
    $$`.execute(db);
}
