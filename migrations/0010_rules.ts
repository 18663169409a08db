import { type Kysely, sql } from 'kysely';

// As in 0007_reactors.ts: every statement after a lock needs its own snapshot, and plans must not scan a full table.
const PLANS = sql`set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off`;

/**
 * What automation rules were asked and what they did, and back-tests. Evaluations cannot be derived: they record what was caused. Jobs are
 * taken by their kind, so that many of one kind keep none of another waiting.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table keep.rule_evaluations (
      -- in the order in which they were made
      nr bigint generated always as identity primary key,
      organization_id text collate "C" not null,
      -- derived from rule and event, and for a wait from the time trigger: a rule is asked once
      id text collate "C" not null,
      rule_id text collate "C" not null,
      rule_revision integer not null,
      rule_name text,
      conversation_id text collate "C" not null,
      -- names the key that seals personal values in conditions
      key_id text not null,
      trigger text not null,
      event_id text not null,
      position text collate "C" not null,
      revision integer not null,
      at timestamptz not null,
      outcome text not null,
      reason text,
      by_rules text[],
      -- json and not jsonb: it keeps the order of names
      conditions json,
      actions jsonb not null,
      created_at timestamptz not null default now(),
      unique (organization_id, id)
    ) with (fillfactor = 90)`.execute(db);
  await sql`create index rule_evaluations_by_rule on keep.rule_evaluations (organization_id, rule_id, outcome, nr desc)`.execute(db);
  await sql`create index rule_evaluations_by_conversation on keep.rule_evaluations (organization_id, conversation_id, nr desc)`.execute(db);

  await sql`
    create table keep.rule_back_tests (
      organization_id text collate "C" not null,
      id text collate "C" not null,
      rule_id text,
      rule json not null,
      from_ms bigint,
      to_ms bigint not null,
      -- the log's end when it was asked for
      until text collate "C" not null,
      status text not null default 'running',
      looked bigint not null default 0,
      matched bigint not null default 0,
      actions json not null default '[]',
      matches json not null default '[]',
      error text,
      created_at timestamptz not null default now(),
      primary key (organization_id, id)
    )`.execute(db);

  await sql`drop index keep.jobs_due`.execute(db);
  await sql`create index jobs_due on keep.jobs (kind, due_at, id) where head`.execute(db);

  // As keep.take_jobs in 0007_reactors.ts, but it takes as many jobs of each kind as there is room for. Where more jobs of a kind in p_fair are
  // due than that, it takes the oldest job of each receiver, then the second job of each, and so on: however many jobs wait for one receiver,
  // they keep no job of another waiting. Where there is room for all, it need not look at receivers, whose jobs may not be due yet. Workers of
  // an earlier build go on with the function there.
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
}
