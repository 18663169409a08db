import type { Transactor } from '../commands/transactor.js';
import type { DataKey } from '../security/sealing.js';
import { assigneeAggregate } from '../team/assignee.js';
import { visitorAggregate } from '../visitors/visitor.js';
import { unsealVisitor } from '../visitors/visitor.sealing.js';
import { type Joined, visitorBrief } from './conversation.answer.js';
import type { Conversation } from './conversation.js';

/** What a conversation's answer shows of its visitor, its assignee and its team, as they are now, at most `maxAgeMs` old. */
export async function joinedNow(
  transactor: Pick<Transactor, 'load'>,
  organizationId: string,
  state: Pick<Conversation, 'visitorId'> & Pick<Conversation<unknown>, 'assignee' | 'team'>,
  key: DataKey | undefined,
  maxAgeMs: number,
): Promise<Joined> {
  const [visitor, assignee, team] = await Promise.all([
    transactor.load(visitorAggregate, organizationId, state.visitorId, maxAgeMs),
    state.assignee === null ? undefined : transactor.load(assigneeAggregate, organizationId, state.assignee.id, maxAgeMs),
    state.team === null ? undefined : transactor.load(assigneeAggregate, organizationId, state.team.id, maxAgeMs),
  ]);
  return {
    visitor: visitorBrief(state.visitorId, visitor === undefined ? undefined : unsealVisitor(visitor.state, key)),
    assigneeName: assignee?.state.name,
    teamName: team?.state.name,
  };
}
