import type { CommandBus } from '@nestjs/cqrs';
import type { Kysely } from 'kysely';
import type { Backend } from '../src/backend.js';
import type { Database } from '../src/platform/database.js';
import { FindConversationIdsHandler } from '../src/queries/conversation-list.js';
import { takeOffArchivedJobs } from './archived-assignees.jobs.js';
import { archivedAssignees } from './archived-assignees.reactor.js';
import { signHeadJobs } from './head-signer.jobs.js';
import { HEAD_SIGNER, headSigner } from './head-signer.reactor.js';
import type { JobKind } from './runtime/job-runner.js';
import type { Reactor } from './runtime/reactor.js';
import { wakeConversationJobs } from './snooze-timer.jobs.js';
import { snoozeTimer } from './snooze-timer.reactor.js';

/** The reactors of this build. */
export function reactorsOf(backend: Pick<Backend, 'store' | 'transactor' | 'masterKey'>): readonly Reactor[] {
  return [snoozeTimer, archivedAssignees, headSigner(backend)];
}

/** How this build does each kind of job. */
export function jobKindsOf(backend: Backend, database: Kysely<Database>, commands: CommandBus): readonly JobKind[] {
  const { store, transactor, masterKey, checkpoints, logger } = backend;
  return [
    wakeConversationJobs(commands),
    takeOffArchivedJobs({ commands, transactor, checkpoints, find: new FindConversationIdsHandler(database) }),
    signHeadJobs({ store, transactor, masterKey, database, log: logger, reactor: HEAD_SIGNER }),
  ];
}

/** @throws Error when two followers of the feed share a name, or when nobody does a kind of job that a reactor adds */
export function assertReactors(groups: readonly string[], reactors: readonly Reactor[], kinds: readonly JobKind[]): void {
  const names = [...groups, ...reactors.map(({ name }) => name)];
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`two groups or reactors are named ${twice}`);
  const handled = new Set(kinds.map(({ kind }) => kind));
  const bare = reactors.flatMap(({ jobs }) => jobs).filter((kind) => !handled.has(kind));
  if (bare.length > 0) throw new Error(`these kinds of jobs have no handler: ${bare.join(', ')}`);
}
