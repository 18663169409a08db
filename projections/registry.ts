import type { CommandBus } from '@nestjs/cqrs';
import type { Kysely } from 'kysely';
import { RULES_REACTOR } from '../src/automation/evaluation.store.js';
import type { Backend } from '../src/backend.js';
import type { Database } from '../src/database/database.js';
import { FindConversationIdsHandler } from '../src/conversations/conversation.list.js';
import { CORE_GROUP, INSIGHT_GROUP } from '../src/read-models/groups.js';
import type { ReadTable } from '../src/read-models/table.js';
import { AutomaticAssignmentReader } from '../src/conversations/automatic-assignment.reader.js';
import { AnalyticsProjection } from './analytics.projection.js';
import { takeOffArchivedJobs } from './archived-assignees.jobs.js';
import { archivedAssignees } from './archived-assignees.reactor.js';
import { AutomaticAssignmentsProjection } from './automatic-assignments.projection.js';
import { answerVisitorJobs } from './auto-responder.jobs.js';
import { AUTO_RESPONDER, autoResponder } from './auto-responder.reactor.js';
import { ConversationListProjection } from './conversation-list.projection.js';
import { EventFeedProjection } from './event-feed.projection.js';
import { signHeadJobs } from './head-signer.jobs.js';
import { HEAD_SIGNER, headSigner } from './head-signer.reactor.js';
import { assignWaitingJobs } from './inbox-assignment.jobs.js';
import { INBOX_ASSIGNMENT, inboxAssignment } from './inbox-assignment.reactor.js';
import { PeopleProjection } from './people.projection.js';
import type { JobKind } from './runtime/job-runner.js';
import { Jobs } from './runtime/jobs.js';
import type { Projection } from './runtime/projection.js';
import type { Reactor } from './runtime/reactor.js';
import { doRuleActions } from './rule-actions.jobs.js';
import { runBackTests } from './rule-back-tests.jobs.js';
import { ruleIdsOf } from './rule-ids.js';
import { fireRuleTimers } from './rule-timers.jobs.js';
import { SearchProjection } from './search.projection.js';
import { setRuleWaits } from './rule-waits.jobs.js';
import { rulesReactor } from './rules.reactor.js';
import { wakeConversationJobs } from './snooze-timer.jobs.js';
import { snoozeTimer } from './snooze-timer.reactor.js';
import type { ToldEvents } from '../src/webhooks/webhook.told-events.js';
import { Replays } from '../src/webhooks/webhook.replays.js';
import { replayWebhookJobs } from './webhook-replay.jobs.js';
import { WEBHOOKS, webhooks } from './webhooks.reactor.js';

/** The groups of this build, each with a function that makes its projections, so that each run or rebuild has its own. */
export const GROUPS: Readonly<Record<string, () => readonly Projection[]>> = {
  [CORE_GROUP]: () => [
    new ConversationListProjection(),
    new AutomaticAssignmentsProjection(),
    new PeopleProjection(),
    new EventFeedProjection(),
  ],
  [INSIGHT_GROUP]: () => [new AnalyticsProjection(), new SearchProjection()],
};

/** @throws Error when this build has no such group */
export function projectionsOf(group: string): readonly Projection[] {
  const make = GROUPS[group];
  if (make === undefined) throw new Error(`there is no group of projections named ${group}`);
  return make();
}

/**
 * @param tables the tables that queries read
 * @param groups the projections that are about to run, by group
 * @throws Error unless each table is written by exactly one projection, of the group that the table names, and projection names are unique
 */
export function assertEveryTableWritten(tables: readonly ReadTable[], groups: Readonly<Record<string, readonly Projection[]>>): void {
  const written = Object.entries(groups).flatMap(([group, projections]) => projections.map((projection) => ({ group, projection })));
  const names = written.map(({ projection: { name } }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`two projections are named ${twice}`);
  for (const table of tables) {
    const writers = written.filter(({ projection }) => projection.tables.includes(table));
    const said = writers.map(({ group, projection: { name } }) => `${name} of the group ${group}`).join(' and ');
    if (writers.length !== 1) throw new Error(`the table ${table.name} is written by ${said === '' ? 'no projection' : said}`);
    if (writers[0]?.group !== table.group)
      throw new Error(`the table ${table.name} names the group ${table.group}, but is written by ${said}`);
  }
  for (const { projection } of written)
    for (const table of projection.tables)
      if (!tables.includes(table)) throw new Error(`${projection.name} writes the table ${table.name}, which no query can find`);
}

type ReactorParts = Pick<
  Backend,
  'store' | 'transactor' | 'masterKey' | 'keys' | 'database' | 'readModels' | 'checkpoints' | 'timersClock'
> & { readonly told?: ToldEvents };

/** The reactors of this build by name, each with a function that makes it, so that names are known before any store is open. */
export const REACTORS: Readonly<Record<string, (parts: ReactorParts) => Reactor>> = {
  [snoozeTimer.name]: () => snoozeTimer,
  [archivedAssignees.name]: () => archivedAssignees,
  [HEAD_SIGNER]: headSigner,
  [INBOX_ASSIGNMENT]: inboxAssignment,
  [AUTO_RESPONDER]: autoResponder,
  [WEBHOOKS]: webhooks,
  [RULES_REACTOR]: (parts) => rulesReactor({ ...parts, list: ruleIdsOf(parts) }),
};

/** The reactors of this build. */
export function reactorsOf(parts: ReactorParts): readonly Reactor[] {
  return Object.values(REACTORS).map((make) => make(parts));
}

/** How this build does each kind of job. */
export function jobKindsOf(
  backend: Backend & { readonly told: ToldEvents },
  database: Kysely<Database>,
  commands: CommandBus,
): readonly JobKind[] {
  const { store, transactor, masterKey, keys, checkpoints, readModels, logger, timersClock, told } = backend;
  const jobs = new Jobs(database, timersClock);
  return [
    wakeConversationJobs(commands),
    takeOffArchivedJobs({ commands, store, transactor, checkpoints, find: new FindConversationIdsHandler(database, readModels) }),
    assignWaitingJobs({
      commands,
      store,
      checkpoints,
      jobs,
      reader: new AutomaticAssignmentReader(database, readModels),
    }),
    answerVisitorJobs(commands),
    doRuleActions({ commands, store, database }),
    fireRuleTimers({ store, keys, database, jobs }),
    setRuleWaits({ store, keys, readModels, checkpoints, database, jobs }),
    runBackTests({ store, keys, transactor, database }),
    signHeadJobs({ store, transactor, masterKey, database, log: logger, reactor: HEAD_SIGNER }),
    replayWebhookJobs({ database, transactor, replays: new Replays(database, readModels, store), timersClock, told }),
  ];
}

/** @throws Error when two followers of the feed share a name, or when a reactor adds jobs of a kind without a handler */
export function assertReactors(groups: readonly string[], reactors: readonly Reactor[], kinds: readonly Pick<JobKind, 'kind'>[]): void {
  const names = [...groups, ...reactors.map(({ name }) => name)];
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`two groups or reactors are named ${twice}`);
  const handled = new Set(kinds.map(({ kind }) => kind));
  const bare = reactors.flatMap(({ jobs }) => jobs).filter((kind) => !handled.has(kind));
  if (bare.length > 0) throw new Error(`these kinds of jobs have no handler: ${bare.join(', ')}`);
}
