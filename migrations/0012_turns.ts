import { type Kysely, sql } from 'kysely';

// As in 0007_reactors.ts: every statement after a lock needs its own snapshot, and plans must not scan a full table.
const PLANS = sql`set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off`;

/** Timers of rules are taken in turns between organizations. */
export async function up(db: Kysely<unknown>): Promise<void> {
  // As keep.take_jobs in 0010_rules.ts, but receivers take turns only while more jobs of their kind are due than there is room for: whoever
  // takes all that is due keeps nobody waiting, and need not look at receivers whose jobs are not due yet. Workers of an earlier build go on
  // with the function there.
  await sql`
    create function keep.take_due_jobs(
      p_kinds text[], p_rooms integer[], p_fair text[], p_owner text, p_lease interval, p_now timestamptz)
    returns setof keep.jobs language plpgsql ${PLANS} as $$
    declare
      v_clock timestamptz := clock_timestamp();
      v_now timestamptz := coalesce(p_now, v_clock);
      v_turns text[];
    begin
      v_turns := array(
        select wanted.kind from unnest(p_kinds, p_rooms) wanted(kind, room)
        where wanted.kind = any (p_fair)
          and exists (
            select from keep.jobs j
            where j.head and j.kind = wanted.kind and j.due_at <= v_now
              and (j.leased_until is null or j.leased_until < v_clock or j.leased_until > v_clock + 2 * p_lease)
            order by j.due_at, j.id offset wanted.room limit 1
          ));
      return query
        with recursive receivers as (
          select turns.kind,
            (select j.receiver from keep.jobs j where j.kind = turns.kind and j.receiver is not null order by j.receiver limit 1) as receiver
          from unnest(v_turns) turns(kind)
          union all
          select r.kind,
            (select j.receiver from keep.jobs j where j.kind = r.kind and j.receiver > r.receiver order by j.receiver limit 1)
          from receivers r where r.receiver is not null
        ), due as materialized (
          select first.id from unnest(p_kinds, p_rooms) wanted(kind, room)
          cross join lateral (
            select j.id from keep.jobs j
            where j.head and j.kind = wanted.kind and j.due_at <= v_now
              and (j.leased_until is null or j.leased_until < v_clock or j.leased_until > v_clock + 2 * p_lease)
            order by j.due_at, j.id limit wanted.room
            for update skip locked
          ) first
          where wanted.kind <> all (v_turns)
          union all
          select first.id from unnest(p_kinds, p_rooms) wanted(kind, room)
          cross join lateral (
            select numbered.id from receivers r
            cross join lateral (
              select oldest.id, oldest.due_at, row_number() over (order by oldest.due_at, oldest.id) as nr
              from (
                select j.id, j.due_at from keep.jobs j
                where j.kind = wanted.kind and j.receiver = r.receiver and j.head and j.due_at <= v_now
                  and (j.leased_until is null or j.leased_until < v_clock or j.leased_until > v_clock + 2 * p_lease)
                order by j.due_at, j.id limit wanted.room
                for update skip locked
              ) oldest
            ) numbered
            where r.kind = wanted.kind and r.receiver is not null
            order by numbered.nr, numbered.due_at, numbered.id limit wanted.room
          ) first
          where wanted.kind = any (v_turns)
        )
        update keep.jobs j set owner = p_owner, leased_until = v_clock + p_lease, attempt = j.attempt + 1
        from due where j.id = due.id
        returning j.*;
    end
    $$`.execute(db);

  // Those that were set before. A worker of an earlier build goes on setting such: they are taken when there is room for all that is due.
  await sql`update keep.jobs set receiver = organization_id where kind = 'rule-timer' and receiver is null`.execute(db);
}
