import { Body, Controller, Get, HttpCode, Inject, Param, Post, Query, UseFilters } from '@nestjs/common';
import { IsOptional } from 'class-validator';
import type { Kysely } from 'kysely';
import { z } from 'zod';
import { CLOCK, type Clock } from '../clock.js';
import { assertNotRefused, type CommandContext } from '../commands/command-context.js';
import { Transactor } from '../commands/transactor.js';
import { DATABASE, type Database } from '../database/database.js';
import { ThreadlogError } from '../errors.js';
import { EVENT_STORE, type EventStore } from '../event-store/event-store.js';
import { Answered } from '../http/answered.js';
import { Answers, dataOf } from '../http/answers.js';
import { InContext, OrganizationId } from '../http/parameters.js';
import { Examples } from '../http/request-schema.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import {
  IfGiven,
  IfGivenOrWithout,
  IsInstant,
  IsMatching,
  IsNested,
  IsNotBeside,
  IsResourceId,
  Limit,
  limited,
  NullIsAbsent,
  parseInstant,
} from '../http/validation.js';
import { derivedId } from '../ids.js';
import { Cursors } from '../read-models/paging.js';
import { Roles } from '../security/auth.guard.js';
import { addBackTest, type BackTest, backTestsOf, findBackTest, type ListedBackTest } from './back-test.store.js';
import { RuleWriter } from './rule.commands.js';
import { CreateRuleDto, ruleOf } from './rule.dto.js';
import { ACTIONS, ruleAggregate, type RuleFields } from './rule.js';
import { RuleFaultsFilter } from './rule-faults.filter.js';

@Examples({
  'a rule that is not saved': {
    rule: {
      trigger: 'message.received',
      conditions: [{ field: 'message.content', operator: 'contains', value: 'refund' }],
      actions: [{ type: 'addTag', tag: 'refund-request' }],
    },
    from: '2026-01-01T00:00:00Z',
  },
  'a saved rule': { ruleId: 'a-rule' },
})
class BeginBackTestDto {
  /** As a rule is made; it is not saved. */
  @IfGivenOrWithout('ruleId') @IsNested(CreateRuleDto) rule?: CreateRuleDto;
  /** A saved rule, as it is now. */
  @IfGiven() @IsNotBeside('rule') @IsResourceId() ruleId?: string;
  /** The first instant that counts; by default the log's beginning. */
  @NullIsAbsent() @IsInstant() from?: string;
  /** The last instant that counts; by default now. */
  @NullIsAbsent() @IsInstant() to?: string;
}

const MAX_LIMIT = 100;
const DEFAULT_LIMIT = 25;

class BackTestsQueryDto {
  @IsOptional() @Limit(MAX_LIMIT) limit?: string;
  /** nextCursor of the page before. */
  @IsOptional() @IsMatching(/^[\w.-]{1,500}$/, 'must be a nextCursor of this list') cursor?: string;
}

const found = {
  id: z.string(),
  status: z.enum(['running', 'done', 'failed']),
  looked: z.number().int().describe('How often the rule was asked.'),
  matched: z.number().int(),
  actions: z.array(z.strictObject({ type: z.enum(ACTIONS), count: z.number().int() })).readonly(),
};

const backTestSchema = z
  .strictObject({
    ...found,
    matches: z
      .array(
        z.strictObject({
          conversationId: z.string(),
          eventId: z.string(),
          position: z.string(),
          revision: z.number().int(),
          at: z.iso.datetime({ precision: 3 }),
        }),
      )
      .readonly()
      .describe('The first 100.'),
    error: z.string().optional(),
  })
  .meta({ id: 'BackTest' });
type BackTestAnswer = z.infer<typeof backTestSchema>;

const instant = z.iso.datetime({ precision: 3 });
const backTestSummarySchema = z
  .strictObject({
    ...found,
    from: instant.nullable().describe("Null for the log's beginning."),
    to: instant,
    createdAt: instant,
    error: z.string().optional(),
  })
  .meta({ id: 'BackTestSummary' });
const backTestsPageSchema = z.strictObject({
  data: z.array(backTestSummarySchema),
  meta: z.strictObject({ limit: z.number().int(), hasMore: z.boolean(), nextCursor: z.string().nullable() }),
});
type BackTestsPage = z.infer<typeof backTestsPageSchema>;

/** Back-tests: what a rule would have matched in the past. */
@Controller('automation-rules')
export class BackTestController {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(EVENT_STORE) private readonly store: EventStore,
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(RuleWriter) private readonly writer: RuleWriter,
    @Inject(Cursors) private readonly cursors: Cursors,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Post('back-tests')
  @HttpCode(202)
  @UseFilters(RuleFaultsFilter)
  @Roles('admin')
  @Answers(
    'Asks a rule about the past.',
    'Begins to ask the rule about all events of the past, by the evaluator that asks live rules, and answers the id by which the findings are read. Appends nothing and does none of the actions.',
    { 202: dataOf(z.strictObject({ id: z.string() })) },
    {
      errors: [
        'unknown_rule',
        'unknown_assignee',
        'unknown_team',
        'unknown_inbox',
        'unknown_company',
        'resource_archived',
        'limit_exceeded',
      ],
    },
  )
  async beginBackTest(
    @Body() { rule, ruleId, from, to }: BeginBackTestDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: { id: string } }>> {
    const { organizationId, commandId } = context;
    const id = derivedId('back-test', commandId);
    const answer = new Answered({ data: { id } }, { location: `/api/support/automation-rules/back-tests/${id}` });
    if ((await findBackTest(this.database, organizationId, id)) !== undefined) return answer;
    assertNotRefused(context);
    const tested = await this.tested(organizationId, rule, ruleId);
    await addBackTest(this.database, organizationId, {
      id,
      ruleId: ruleId ?? null,
      rule: tested,
      from: parseInstant(from) ?? null,
      to: parseInstant(to) ?? this.clock.now(),
      until: await this.store.head(),
    });
    return answer;
  }

  @Get('back-tests/:id')
  @Roles('admin', 'agent', 'auditor')
  @Answers('Reads a back-test.', 'Its findings so far; `matches` holds the first 100. It is kept as long as evaluations are.', {
    200: dataOf(backTestSchema),
  })
  async backTest(@Param('id', ResourceIdPipe) id: string, @OrganizationId() organizationId: string): Promise<{ data: BackTestAnswer }> {
    const found = await findBackTest(this.database, organizationId, id);
    if (found === undefined) throw new ThreadlogError('not_found');
    return { data: backTestAnswer(found) };
  }

  @Get(':id/back-tests')
  @Roles('admin', 'agent', 'auditor')
  @Answers(
    "Lists a rule's back-tests, newest first.",
    'Those that were begun with `ruleId`, without their matches. They are kept as long as evaluations are.',
    { 200: backTestsPageSchema },
  )
  async backTestsOfRule(
    @Param('id', ResourceIdPipe) id: string,
    @Query() query: BackTestsQueryDto,
    @OrganizationId() organizationId: string,
  ): Promise<BackTestsPage> {
    if ((await this.transactor.load(ruleAggregate, organizationId, id))?.state.exists !== true) throw new ThreadlogError('not_found');
    const limit = limited(query.limit, DEFAULT_LIMIT, MAX_LIMIT);
    const scope = JSON.stringify(['back-tests', organizationId, id]);
    const [at, last] = query.cursor === undefined ? [] : this.cursors.read(scope, query.cursor);
    const before = at === undefined ? undefined : { at: String(at), id: String(last) };
    const rows = await backTestsOf(this.database, organizationId, id, { before, limit: limit + 1 });
    const shown = rows.slice(0, limit);
    const oldest = shown.at(-1);
    const hasMore = rows.length > limit;
    const nextCursor = hasMore && oldest !== undefined ? this.cursors.sign(scope, [oldest.at, oldest.id]) : null;
    return { data: shown.map(backTestSummary), meta: { limit, hasMore, nextCursor } };
  }

  private async tested(organizationId: string, rule: CreateRuleDto | undefined, ruleId: string | undefined): Promise<RuleFields> {
    if (rule !== undefined) {
      const given = ruleOf(rule);
      await this.writer.check(organizationId, given, undefined, ['rule']);
      return given;
    }
    const found = ruleId === undefined ? undefined : await this.transactor.load(ruleAggregate, organizationId, ruleId);
    if (found?.state.exists !== true) throw new ThreadlogError('unknown_rule', `no automation rule has the id ${ruleId ?? ''}`);
    const { name, trigger, conditions, actions, enabled, order, stopOnMatch } = found.state;
    return { name, trigger, conditions, actions, enabled, order, stopOnMatch };
  }
}

const instantOf = (ms: number) => new Date(ms).toISOString();

const backTestSummary = ({
  id,
  status,
  looked,
  matched,
  actions,
  from,
  to,
  createdAt,
  error,
}: ListedBackTest): BackTestsPage['data'][number] => ({
  id,
  status,
  looked,
  matched,
  actions,
  from: from === null ? null : instantOf(from),
  to: instantOf(to),
  createdAt: instantOf(createdAt),
  ...(error === null ? {} : { error }),
});

function backTestAnswer({ id, status, looked, matched, actions, matches, error }: BackTest): BackTestAnswer {
  return {
    id,
    status,
    looked,
    matched,
    actions,
    matches: matches.map(({ conversationId, eventId, position, revision, at }) => ({
      conversationId,
      eventId,
      position,
      revision,
      at: instantOf(at),
    })),
    ...(error === null ? {} : { error }),
  };
}
