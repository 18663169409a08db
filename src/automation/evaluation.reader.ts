import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, sql } from 'kysely';
import { DATABASE, type Database } from '../database/database.js';
import { Cursors } from '../read-models/paging.js';
import { VisitorKeys } from '../security/visitor-keys.js';
import { OUTCOMES, type Outcome } from './ask.js';
import { evaluationAnswer, type EvaluationsPage } from './evaluation.answer.js';
import { type ActionTrace, type Evaluation, unsealConditions } from './evaluation.store.js';

/** Whose evaluations. */
export type EvaluationsOf = { readonly ruleId: string } | { readonly conversationId: string };

interface Row {
  readonly nr: number;
  readonly id: string;
  readonly rule_id: string;
  readonly rule_revision: number;
  readonly rule_name: string | null;
  readonly conversation_id: string;
  readonly key_id: string;
  readonly trigger: Evaluation['trigger'];
  readonly event_id: string;
  readonly position: string;
  readonly revision: number;
  readonly at: Date;
  readonly outcome: Outcome;
  readonly reason: Evaluation['reason'];
  readonly by_rules: readonly string[] | null;
  readonly conditions: unknown;
  readonly actions: readonly ActionTrace[];
}

/** Reads what rules were asked and what they did, newest first. */
@Injectable()
export class EvaluationReader {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(Cursors) private readonly cursors: Cursors,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
  ) {}

  /** @throws ThreadlogError validation_failed for a cursor of another list */
  async page(
    organizationId: string,
    of: EvaluationsOf,
    { outcome, cursor, limit }: { readonly outcome: Outcome | undefined; readonly cursor: string | undefined; readonly limit: number },
  ): Promise<EvaluationsPage> {
    const scope = JSON.stringify(['evaluations', organizationId, of, outcome ?? null]);
    const [before] = cursor === undefined ? [] : this.cursors.read(scope, cursor);
    const older = before === undefined ? sql`true` : sql`nr < ${before}`;
    // The newest of each outcome, which the index has in order; the newest of all are among them.
    const { rows } =
      'ruleId' in of
        ? await sql<Row>`
            select e.* from unnest(${outcome === undefined ? [...OUTCOMES] : [outcome]}::text[]) wanted(outcome)
            cross join lateral (
              select * from keep.rule_evaluations
              where organization_id = ${organizationId} and rule_id = ${of.ruleId} and outcome = wanted.outcome and ${older}
              order by nr desc limit ${sql.lit(limit + 1)}
            ) e order by nr desc limit ${sql.lit(limit + 1)}`.execute(this.database)
        : await sql<Row>`
            select * from keep.rule_evaluations
            where organization_id = ${organizationId} and conversation_id = ${of.conversationId} and ${older}
              and ${outcome === undefined ? sql`true` : sql`outcome = ${outcome}`}
            order by nr desc limit ${sql.lit(limit + 1)}`.execute(this.database);
    const shown = rows.slice(0, limit);
    const keys = await this.keys.findMany(organizationId, new Set(shown.map(({ key_id: keyId }) => keyId)));
    const last = shown.at(-1);
    const hasMore = rows.length > limit;
    return {
      data: shown.map((row) =>
        evaluationAnswer({
          id: row.id,
          ruleId: row.rule_id,
          ruleRevision: row.rule_revision,
          ruleName: row.rule_name,
          conversationId: row.conversation_id,
          trigger: row.trigger,
          eventId: row.event_id,
          position: row.position,
          revision: row.revision,
          at: row.at.getTime(),
          outcome: row.outcome,
          reason: row.reason,
          byRules: row.by_rules,
          conditions: unsealConditions(row.conditions, row.id, keys.get(row.key_id)),
          actions: row.actions,
        }),
      ),
      meta: { limit, hasMore, nextCursor: hasMore && last !== undefined ? this.cursors.sign(scope, [last.nr]) : null },
    };
  }
}
