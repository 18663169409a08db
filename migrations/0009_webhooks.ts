import { type Kysely, sql } from 'kysely';

// As in 0007_reactors.ts: every statement after a lock needs its own snapshot, and plans must not scan a full table.
const PLANS = sql`set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off`;

/** Secrets and deliveries of webhooks, and jobs that are taken by their receiver. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table keep.webhook_secrets (
      organization_id text not null,
      webhook_id text not null,
      -- derived from the command that made it
      id uuid not null,
      wrapped bytea not null,
      -- the revision of the event that made the secret: it orders the secrets, in whatever order they are written
      revision integer not null,
      -- until when the secrets of lower revisions sign
      earlier_until timestamptz not null,
      primary key (organization_id, webhook_id, id)
    )`.execute(db);

  await sql`
    create table keep.webhook_health (
      organization_id text not null,
      webhook_id text not null,
      failing_since timestamptz not null,
      primary key (organization_id, webhook_id)
    )`.execute(db);

  await sql`
    create table keep.webhook_deliveries (
      seq bigint generated always as identity,
      id uuid primary key,
      organization_id text not null,
      webhook_id text not null,
      event text not null,
      -- the stream that the body is made from; revision -1 for a ping
      kind text not null,
      stream_id text collate "C" not null,
      revision integer not null,
      index smallint not null,
      position text collate "C" not null,
      status text not null,
      tries integer not null default 0,
      attempts integer not null default 0,
      next_attempt_at timestamptz,
      last_status smallint,
      last_error text,
      created_at timestamptz not null,
      delivered_at timestamptz,
      log jsonb not null default '[]'
    ) with (fillfactor = 80)`.execute(db);
  // A list reads a part of it for each status, the newest first, and looks at the event's name without reading the row.
  await sql`
    create index webhook_deliveries_list
    on keep.webhook_deliveries (organization_id, webhook_id, status, created_at, seq, event)`.execute(db);
  await sql`create index webhook_deliveries_stream on keep.webhook_deliveries (stream_id, webhook_id)`.execute(db);
  // For the removal of old rows, which were made in the order of time.
  await sql`create index webhook_deliveries_age on keep.webhook_deliveries using brin (created_at)`.execute(db);

  await sql`
    alter table keep.jobs
      add column receiver text,
      -- a resend was asked for while the job was under way
      add column resend boolean not null default false`.execute(db);
  // All jobs of a kind for a receiver, and in the order of time those that may be done.
  await sql`
    create index jobs_receiver on keep.jobs (kind, receiver, head, due_at, id) where receiver is not null`.execute(db);

  // As in 0007_reactors.ts, with the receiver.
  await sql`
    create or replace function keep.add_jobs(p_jobs jsonb, p_now timestamptz) returns integer language plpgsql ${PLANS} as $$
    declare
      v_now timestamptz := coalesce(p_now, clock_timestamp());
      v_added integer;
    begin
      perform keep.lock_lanes(array(select distinct lane from jsonb_to_recordset(p_jobs) given(lane text)));
      with given as (
        select distinct on (kind, key) *
        from rows from (
          jsonb_to_recordset(p_jobs) as (
            kind text, key text, lane text, receiver text, organization_id text, payload jsonb, due_ms float8, delay_ms float8)
        ) with ordinality as g(kind, key, lane, receiver, organization_id, payload, due_ms, delay_ms, nr)
        order by kind, key, nr
      ), fresh as (
        select * from given g where not exists (select from keep.jobs j where j.kind = g.kind and j.key = g.key)
      )
      insert into keep.jobs (kind, key, lane, receiver, head, organization_id, payload, due_at)
      select kind, key, lane, receiver,
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

  // Takes due jobs of one kind with their deliveries, for each receiver at most as many as p_rooms says, or p_room. Looks at each receiver
  // once, however many jobs wait for it, so that no receiver's backlog keeps others waiting. The commit does not wait for the disk: after a
  // crash of the server nobody has the jobs.
  await sql`
    create function keep.take_deliveries(
      p_kind text, p_rooms jsonb, p_room integer, p_most integer, p_owner text, p_lease interval, p_now timestamptz)
    returns table (
      job bigint, attempt integer, receiver text, id uuid, organization_id text, webhook_id text, event text, kind text, stream_id text,
      revision integer, index smallint, tries integer, status text
    ) language plpgsql ${PLANS} as $$
    declare
      v_clock timestamptz := clock_timestamp();
      v_now timestamptz := coalesce(p_now, v_clock);
    begin
      perform set_config('synchronous_commit', 'off', true);
      return query
        with recursive receivers as (
          (select j.receiver from keep.jobs j where j.kind = p_kind and j.receiver is not null order by j.receiver limit 1)
          union all
          select (select j.receiver from keep.jobs j where j.kind = p_kind and j.receiver > r.receiver order by j.receiver limit 1)
          from receivers r where r.receiver is not null
        ), due as materialized (
          select first.id from receivers r
          cross join lateral (
            select j.id, j.due_at from keep.jobs j
            where j.kind = p_kind and j.receiver = r.receiver and j.head and j.due_at <= v_now
              and (j.leased_until is null or j.leased_until < v_clock or j.leased_until > v_clock + 2 * p_lease)
            order by j.due_at, j.id limit coalesce((p_rooms ->> r.receiver)::integer, p_room)
            for update skip locked
          ) first
          order by first.due_at, first.id limit p_most
        ), taken as (
          update keep.jobs j
          set owner = p_owner, leased_until = v_clock + p_lease, attempt = j.attempt + 1, resend = false
          from due where j.id = due.id
          returning j.id, j.attempt, j.receiver, j.key
        )
        select t.id, t.attempt, t.receiver, d.id, d.organization_id, d.webhook_id, d.event, d.kind, d.stream_id, d.revision, d.index,
          d.tries, d.status
        from taken t join keep.webhook_deliveries d on d.id = t.key::uuid;
    end
    $$`.execute(db);

  await sql`
    create function keep.latest_attempts(p_log jsonb) returns jsonb language sql immutable as $$
      select case when jsonb_array_length(p_log) <= 50 then p_log
        else jsonb_path_query_array(p_log, '$[last - 49 to last]') end
    $$`.execute(db);

  // Records how deliveries went that were taken:
  //   {job, attempt, id, organization_id, webhook_id, outcome: delivered | again | given_up | unsent, entry, tries, status, error, delay_ms,
  //    endpoint_failed}
  // Only who still has a job, proved by the pair of job and attempt, decides about it. Who lost it adds its attempt to the log, and its
  // success counts: a delivery that arrived is delivered, whatever other attempts say, and is not sent again unless a resend was asked for.
  // The commit does not wait for the disk: after a crash of the server a delivery may be sent again. Answers the endpoints at which attempts
  // have failed for p_long.
  await sql`
    create function keep.record_deliveries(p_results jsonb, p_long interval, p_now timestamptz)
    returns table (organization_id text, webhook_id text) language plpgsql ${PLANS} as $$
    #variable_conflict use_column
    declare
      v_now timestamptz := coalesce(p_now, clock_timestamp());
      v_lanes text[];
      v_held jsonb;
    begin
      perform set_config('synchronous_commit', 'off', true);
      v_lanes := array(
        select distinct j.lane from jsonb_to_recordset(p_results) g(job bigint) join keep.jobs j on j.id = g.job where j.lane is not null);
      perform keep.lock_lanes(v_lanes);
      perform from jsonb_to_recordset(p_results) g(job bigint, attempt integer)
        join keep.jobs j on j.id = g.job and j.attempt = g.attempt order by j.id for update of j;

      update keep.webhook_deliveries d
      set attempts = d.attempts + late.many,
        log = keep.latest_attempts(d.log || late.entries),
        status = case when late.delivered then 'delivered' else d.status end,
        last_status = case when late.delivered then late.status else d.last_status end,
        last_error = case when late.delivered then null else d.last_error end,
        delivered_at = case when late.delivered then coalesce(d.delivered_at, v_now) else d.delivered_at end,
        next_attempt_at = case when late.delivered then null else d.next_attempt_at end
      from (
        select g.id, count(*) as many, jsonb_agg(g.entry) as entries, bool_or(g.outcome = 'delivered') as delivered,
          max(g.status) filter (where g.outcome = 'delivered') as status
        from jsonb_to_recordset(p_results) g(job bigint, attempt integer, id uuid, outcome text, entry jsonb, status smallint)
        where g.entry is not null
          and not exists (select from keep.jobs j where j.id = g.job and j.attempt = g.attempt)
        group by g.id
      ) late
      where d.id = late.id;

      v_held := (
        select coalesce(jsonb_agg(to_jsonb(g) || jsonb_build_object('resend', j.resend, 'arrived', d.status = 'delivered')), '[]')
        from jsonb_to_recordset(p_results) g(
          job bigint, attempt integer, id uuid, outcome text, entry jsonb, tries integer, status smallint, error text, delay_ms float8)
        join keep.jobs j on j.id = g.job and j.attempt = g.attempt
        join keep.webhook_deliveries d on d.id = g.id);
      update keep.webhook_deliveries d
      set attempts = d.attempts + case when h.entry is null then 0 else 1 end,
        log = case when h.entry is null then d.log else keep.latest_attempts(d.log || h.entry) end,
        tries = case when h.resend then 0 when h.entry is null then d.tries else h.tries end,
        last_status = case when h.arrived or h.entry is null then d.last_status else h.status end,
        last_error = case when h.arrived or (h.entry is null and h.error is null) then d.last_error else h.error end,
        delivered_at = case when h.outcome = 'delivered' then coalesce(d.delivered_at, v_now) else d.delivered_at end,
        status = case
          when h.resend then 'pending'
          when h.arrived or h.outcome = 'unsent' then d.status
          when h.outcome = 'again' then 'failed'
          else h.outcome end,
        next_attempt_at = case
          when h.resend then v_now
          when not h.arrived and h.outcome in ('again', 'unsent') then v_now + h.delay_ms * interval '1 ms' end
      from jsonb_to_recordset(v_held) h(
        id uuid, outcome text, entry jsonb, tries integer, status smallint, error text, delay_ms float8, resend boolean, arrived boolean)
      where d.id = h.id;
      delete from keep.jobs j using jsonb_to_recordset(v_held) h(job bigint, outcome text, resend boolean, arrived boolean)
      where j.id = h.job and not h.resend and (h.arrived or h.outcome in ('delivered', 'given_up'));
      -- A job that has ended and is to be done once more leaves its lane to those behind it.
      update keep.jobs j
      set owner = null, leased_until = null, error = h.error, resend = false,
        lane = case when h.outcome in ('delivered', 'given_up') then null else j.lane end,
        due_at = case when h.resend then to_timestamp(0) else v_now + h.delay_ms * interval '1 ms' end
      from jsonb_to_recordset(v_held) h(job bigint, outcome text, error text, delay_ms float8, resend boolean)
      where j.id = h.job;
      perform keep.promote_jobs(v_lanes);

      insert into keep.webhook_health (organization_id, webhook_id, failing_since)
      select distinct g.organization_id, g.webhook_id, v_now
      from jsonb_to_recordset(p_results) g(organization_id text, webhook_id text, endpoint_failed boolean)
      where g.endpoint_failed order by 1, 2
      on conflict do nothing;
      delete from keep.webhook_health h
      using jsonb_to_recordset(p_results) g(organization_id text, webhook_id text, outcome text)
      where h.organization_id = g.organization_id and h.webhook_id = g.webhook_id and g.outcome = 'delivered';
      return query
        select distinct h.organization_id, h.webhook_id from keep.webhook_health h
        join jsonb_to_recordset(p_results) g(organization_id text, webhook_id text, endpoint_failed boolean)
          on h.organization_id = g.organization_id and h.webhook_id = g.webhook_id
        where g.endpoint_failed and h.failing_since <= v_now - p_long;
    end
    $$`.execute(db);

  // Has a delivery sent as soon as can be. One that waits behind others of its lane overtakes them; the first of a lane keeps its place; one
  // that is under way is sent again when that attempt has ended.
  await sql`
    create function keep.resend_delivery(p_kind text, p_id uuid, p_receiver text, p_organization_id text, p_now timestamptz)
    returns void language plpgsql ${PLANS} as $$
    declare
      v_lane text := (select lane from keep.jobs where kind = p_kind and key = p_id::text);
    begin
      perform keep.lock_lanes(array[v_lane]);
      insert into keep.jobs (kind, key, receiver, head, organization_id, payload, due_at)
      values (p_kind, p_id::text, p_receiver, true, p_organization_id, '{}', to_timestamp(0))
      on conflict (kind, key) do update set
        resend = jobs.leased_until is not null,
        head = true,
        lane = case when jobs.head then jobs.lane end,
        due_at = case when jobs.leased_until is null then excluded.due_at else jobs.due_at end;
      perform keep.promote_jobs(array[v_lane]);
      update keep.webhook_deliveries
      set status = 'pending', tries = 0, next_attempt_at = coalesce(p_now, clock_timestamp())
      where id = p_id;
    end
    $$`.execute(db);
}
