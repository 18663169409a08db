import { Command } from '@nestjs/cqrs';
import type { CommandContext } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import { ThreadlogError } from '../errors.js';
import { mayHave, nextAgent } from '../inboxes/agent-choice.js';
import type { AssigningInbox } from './automatic-assignment.reader.js';
import { type ConversationChanged, ConversationWriter } from './conversation.commands.js';
import { assignAutomatically } from './conversation.js';

/**
 * An inbox gives a conversation to one of its members. Changes nothing when the conversation is no longer open, unassigned and in this
 * inbox, or when no member may have it.
 * @throws ThreadlogError not_found; concurrent_changes when the count of the members' conversations is too old
 */
export class AssignAutomatically extends Command<ConversationChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly inbox: AssigningInbox,
    /** Until when (performance.now()) no other process assigns in the organization: afterwards the count in `inbox` may be outdated. */
    readonly countedUntil: number,
  ) {
    super();
  }
}

const handled = handledBy(ConversationWriter);

/** The handlers of this file, for the module. */
export const automaticAssignmentHandlers = [
  handled(AssignAutomatically, (writer, { context, id, inbox, countedUntil }) =>
    writer.changeWith(
      context,
      id,
      async ({ team }) => ({
        // From the log, since the inbox may assign because an agent has just become a member of the team.
        team: team === null ? null : ((await writer.agentOrTeam(context.organizationId, team.id, 0))?.agentIds ?? []),
      }),
      (state, { team }) => {
        // A process that was frozen must not go on with what it counted before.
        if (performance.now() > countedUntil) throw new ThreadlogError('concurrent_changes', 'the count of open conversations is too old');
        const { id: inboxId, mode, members } = inbox;
        if (mode === 'manual') return [];
        return assignAutomatically(nextAgent(inbox, members, mayHave(state.takenFrom, team)), { type: mode, inboxId })(state);
      },
    ),
  ),
];
