import { sql } from 'kysely';
import type { Kysely } from 'kysely';

/**
 * The Postgres log: one table, one function that writes to it, and one row that names the log.
 *
 * The lock makes `position > $checkpoint order by position` safe: positions are assigned and committed while it is held, so the order of
 * commits is the order of positions, and no reader can pass a position that becomes visible later.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`create schema log`.execute(db);

  // A log that is restored from a dump keeps its identity, so that its checkpoints stay valid.
  await sql`create table log.identity (id uuid not null default gen_random_uuid(), only_row boolean primary key default true check (only_row))`.execute(
    db,
  );
  await sql`insert into log.identity default values`.execute(db);

  await sql`
    create table log.events (
      position bigint primary key,
      revision integer not null check (revision >= 0),
      id uuid not null,
      stream text collate "C" not null,
      type text not null,
      data text not null,
      metadata text not null,
      unique (stream, revision)
    )
  `.execute(db);

  // Each parameter is one column of the rows to insert, its values joined with U+001E, which no JSON text holds. The rows of one append
  // are neighbours with rising revisions, and a stream occurs in only one append. The answer has one entry per append, in order and
  // separated by commas: the position of its last event, or on a conflict '!' and the stream's last revision (-1: no such stream).
  //
  // New positions follow the last position in the table. After a restore or on a promoted replica a sequence could be behind it, and would
  // then assign positions that readers have already passed.
  //
  // VOLATILE matters: under READ COMMITTED each statement after the lock has a snapshot taken after the lock. In a single statement the
  // check would read a snapshot from before the wait and miss the previous holder's writes.
  // The planner settings keep plans that were made while the table was empty from scanning a full table.
  await sql`
    create function log.append_many(p_streams text, p_revisions text, p_ids text, p_types text, p_data text, p_metadata text)
    returns text language plpgsql volatile
    set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = off
    as $$
    declare
      c_separator constant text := chr(30);
      v_streams text[];
      v_revisions integer[];
      v_ids uuid[];
      v_refused text[] := '{}';
      v_answer text := '';
      v_base bigint;
      v_actual integer;
      v_append record;
    begin
      perform pg_advisory_xact_lock(7305806211930121);

      if position(c_separator in p_ids) = 0 then
        select revision into v_actual from log.events where stream = p_streams order by revision desc limit 1;
        v_actual := coalesce(v_actual, -1);
        if v_actual = p_revisions::integer - 1 then
          select coalesce(max(position), 0) + 1 into v_base from log.events;
          insert into log.events (position, stream, revision, id, type, data, metadata)
            values (v_base, p_streams, v_actual + 1, p_ids::uuid, p_types, p_data, p_metadata);
          return v_base::text;
        end if;
        select position into v_base from log.events where stream = p_streams and revision = p_revisions::integer and id = p_ids::uuid;
        return coalesce(v_base::text, '!' || v_actual);
      end if;

      v_streams := string_to_array(p_streams, c_separator);
      v_revisions := string_to_array(p_revisions, c_separator)::integer[];
      v_ids := string_to_array(p_ids, c_separator)::uuid[];
      select coalesce(max(position), 0) + 1 into v_base from log.events;

      for v_append in
        select a.stream, a.first, a.last, a.ends, coalesce(e.revision, -1) as actual
        from (
          select stream, min(revision) as first, max(revision) as last, max(nr) as ends
          from unnest(v_streams, v_revisions) with ordinality as t(stream, revision, nr)
          group by stream
        ) a
        left join lateral (select revision from log.events where stream = a.stream order by revision desc limit 1) e on true
        order by a.ends
      loop
        if v_append.actual = v_append.first - 1 then
          v_answer := v_answer || ',' || (v_base + v_append.ends - 1);
        else
          v_refused := v_refused || v_append.stream;
          -- Sent again after a lost reply: the same ids at the same revisions are the same append, and the answer is the first one's.
          if v_append.actual >= v_append.last and (
            select count(*) from log.events e
            where e.stream = v_append.stream and e.revision between v_append.first and v_append.last
              and e.id = v_ids[(v_append.ends - v_append.last + e.revision)::integer]
          ) = v_append.last - v_append.first + 1 then
            v_answer := v_answer || ',' || (select e.position from log.events e where e.stream = v_append.stream and e.revision = v_append.last);
          else
            v_answer := v_answer || ',!' || v_append.actual;
          end if;
        end if;
      end loop;

      insert into log.events (position, stream, revision, id, type, data, metadata)
        select v_base - 1 + nr, stream, revision, id, type, data, metadata
        from unnest(
          v_streams, v_revisions, v_ids, string_to_array(p_types, c_separator), string_to_array(p_data, c_separator), string_to_array(p_metadata, c_separator)
        ) with ordinality as t(stream, revision, id, type, data, metadata, nr)
        where stream <> all (v_refused);

      return substr(v_answer, 2);
    end
    $$
  `.execute(db);
}
