import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import { type Kysely, type RawBuilder, sql, type SqlBool } from 'kysely';
import { CLOCK, type Clock } from '../clock.js';
import type { Status } from '../conversations/conversation.js';
import { summariesOf } from '../conversations/conversation.list.js';
import { type Database, QUESTIONS } from '../database/database.js';
import { readOnlyBatches } from '../database/read-only.js';
import { ThreadlogError } from '../errors.js';
import { StreamPlaces } from '../http/stream-places.js';
import { Cursors } from '../read-models/paging.js';
import { ReadModels } from '../read-models/read-models.js';
import type { BehindAnswer, EventBehind } from './analytics.answer.js';
import { told as toldValue } from './values.js';
import { allOf, conditionsOf, joined, keyOf, rowsOf, withinRange } from './fact.sql.js';
import type { Question } from './question.js';
import { type Instants, instantsOf } from './analytics.ranges.js';
import { ANALYSIS, inSnapshot, type Snapshot } from './analytics.snapshot.js';

/** One number of an answer: a row's key, start and status, as it was answered. */
export interface Opened {
  /** Null for the row without a key. */
  readonly key: string | null | undefined;
  /** ms */
  readonly start: number | undefined;
  readonly inStatus: Status | undefined;
}

export interface BehindPage {
  readonly data: BehindAnswer[];
  readonly count: number;
  readonly conversations: number;
  readonly hasMore: boolean;
  readonly nextCursor: string | null;
  readonly instants: Instants;
  readonly asOf: string;
}

interface Row {
  readonly conversation_id: string;
  readonly revision: number;
  readonly at: number;
  readonly inbox_id: string;
  readonly channel: EventBehind['channel'];
  readonly priority: EventBehind['priority'];
  readonly agent_id: string | null;
  readonly team_id: string | null;
  readonly tags: string[];
  readonly status: Status | null;
  readonly value: number | null;
}

/** Rows that a stream reads at once. */
const BATCH = 1_000;
/** Streams at once in a process: each keeps a session of the database and a snapshot. */
const MOST_STREAMS = 3;
/** Of these an organization has one, so that a slow reader takes no place of others. */
const MOST_OF_AN_ORGANIZATION = 1;
/** How long a stream lasts (ms): its snapshot keeps the database from clearing away old rows. */
const LONGEST_MS = 600_000;

/** Opens numbers: which conversations are behind them, and which events of these. */
@Injectable()
export class BehindReader implements BeforeApplicationShutdown {
  readonly #places = new StreamPlaces({
    each: { most: MOST_OF_AN_ORGANIZATION, full: 'this organization already streams what is behind a number' },
    all: { most: MOST_STREAMS, full: 'this process already streams as much as it may' },
    longestMs: LONGEST_MS,
  });

  constructor(
    @Inject(QUESTIONS) private readonly questions: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
    @Inject(CLOCK) private readonly clock: Clock,
    @Inject(Cursors) private readonly cursors: Cursors,
  ) {}

  /**
   * A page of what is behind a number, newest first.
   * @param withhold for roles that may not read message contents
   * @throws ThreadlogError validation_failed, limit_exceeded
   */
  async page(
    question: Question,
    opened: Opened,
    paging: { readonly limit: number; readonly cursor: string | undefined },
    withhold: boolean,
  ): Promise<BehindPage> {
    const scope = JSON.stringify(['behind', question, opened]);
    const [at, conversationId, revision] = paging.cursor === undefined ? [] : this.cursors.read(scope, paging.cursor);
    return await inSnapshot(this.questions, this.readModels, question.organizationId, async (snapshot) => {
      const { rows: from, instants } = await this.#rows(snapshot, question, opened);
      const after =
        at === undefined
          ? sql<SqlBool>`true`
          : sql<SqlBool>`(at, conversation_id, revision) < (${at}::bigint, ${conversationId}, ${revision}::integer)`;
      const { rows } = await sql<Row>`
        select * from (${from}) behind where ${after} ${NEWEST_FIRST} limit ${paging.limit + 1}`.execute(snapshot.session);
      const { rows: counts } = await sql<{ count: string; conversations: string }>`
        select count(*)::text as count, count(distinct conversation_id)::text as conversations from (${from}) behind`.execute(
        snapshot.session,
      );
      const shown = rows.slice(0, paging.limit);
      const last = shown.at(-1);
      const hasMore = rows.length > paging.limit;
      const ids = [...new Set(shown.map((row) => row.conversation_id))];
      const summaries = await summariesOf(snapshot.session, this.readModels, question.organizationId, ids, withhold);
      return {
        data: shown.map((row) => {
          const conversation = summaries.get(row.conversation_id);
          return { ...answerOf(question, row), ...(conversation === undefined ? {} : { conversation }) };
        }),
        count: Number(counts[0]?.count),
        conversations: Number(counts[0]?.conversations),
        hasMore,
        nextCursor: hasMore && last !== undefined ? this.cursors.sign(scope, [last.at, last.conversation_id, last.revision]) : null,
        instants,
        asOf: snapshot.asOf,
      };
    });
  }

  /**
   * Everything behind a number, newest first, all as of one position.
   * @param cut ends the connection to a client that stopped reading, or takes too long
   * @throws ThreadlogError validation_failed, rate_limited, limit_exceeded
   */
  stream(question: Question, opened: Opened, cut: () => void): AsyncGenerator<readonly EventBehind[], void, undefined> {
    const batches = readOnlyBatches(this.questions, ANALYSIS, (session) => this.#batches(session, question, opened));
    return this.#places.hold(question.organizationId, cut, batches);
  }

  async *#batches(session: Kysely<Database>, question: Question, opened: Opened): AsyncGenerator<readonly EventBehind[], void, undefined> {
    const { rows: from } = await this.#rows({ session, asOf: '' }, question, opened);
    await sql`declare behind no scroll cursor for select * from (${from}) behind ${NEWEST_FIRST}`.execute(session);
    for (;;) {
      const { rows } = await sql<Row>`fetch ${sql.lit(BATCH)} from behind`.execute(session);
      if (rows.length === 0) return;
      yield rows.map((row) => answerOf(question, row));
    }
  }

  beforeApplicationShutdown(): void {
    this.#places.cutAll();
  }

  async #rows(snapshot: Snapshot, question: Question, opened: Opened): Promise<{ rows: RawBuilder<unknown>; instants: Instants }> {
    const { organizationId, metric, range, by, interval, hours, filter } = question;
    const { behind } = metric;
    const instants = await instantsOf(snapshot, this.readModels, organizationId, { ...range, interval }, this.clock.now());
    const part = opened.start === undefined ? instants : within(instants, opened.start);
    const conditions = conditionsOf(this.readModels, organizationId, behind, filter);
    if (behind.table === 'spans') {
      // The spans that last just before the end.
      if (part.to === undefined) conditions.push(sql<SqlBool>`f.to_at is null`);
      else conditions.push(sql<SqlBool>`f.from_at < ${part.to}`, sql<SqlBool>`(f.to_at is null or f.to_at >= ${part.to})`);
    } else conditions.push(...withinRange(behind.at, part));
    if (opened.key !== undefined && by !== undefined) {
      const key = keyOf(behind, by);
      conditions.push(opened.key === null ? sql<SqlBool>`${key} is null` : sql<SqlBool>`${key} = ${opened.key}`);
    }
    if (opened.inStatus !== undefined && behind.status !== undefined)
      conditions.push(sql<SqlBool>`${sql.raw(behind.status)} = ${opened.inStatus}`);
    const value = hours === 'working' ? behind.working : behind.value;
    return {
      instants,
      rows: sql`
        select f.conversation_id, ${sql.raw(behind.revision)} as revision, ${sql.raw(behind.at)} as at, f.inbox_id, f.channel, f.priority,
          ${sql.raw(behind.agent)} as agent_id, f.team_id, f.tags, ${behind.status === undefined ? sql`null` : sql.raw(behind.status)} as status,
          ${value === undefined ? sql`null::bigint` : sql`${sql.raw(value)}::bigint`} as value
        from ${rowsOf(this.readModels, behind)} ${opened.key === undefined ? sql`` : joined(by)} where ${allOf(conditions)}`,
    };
  }
}

const NEWEST_FIRST = sql`order by at desc, conversation_id desc, revision desc`;

/** One interval of a series. @throws ThreadlogError validation_failed */
function within({ from, to, starts }: Instants, start: number): Instants {
  const nr = starts.indexOf(start);
  if (nr === -1)
    throw new ThreadlogError('validation_failed', undefined, {
      errors: [{ field: 'start', message: 'must be the start of an interval of the series, as it was answered' }],
    });
  const next = starts[nr + 1];
  return { from: Math.max(start, from ?? start), to: next ?? to, starts };
}

function answerOf({ metric: { unit } }: Question, row: Row): EventBehind {
  return {
    conversationId: row.conversation_id,
    revision: row.revision,
    at: new Date(row.at).toISOString(),
    inboxId: row.inbox_id,
    channel: row.channel,
    priority: row.priority,
    agentId: row.agent_id,
    teamId: row.team_id,
    tags: row.tags,
    ...(row.status === null ? {} : { status: row.status }),
    ...(row.value === null ? {} : { value: toldValue(unit, row.value) }),
  };
}
