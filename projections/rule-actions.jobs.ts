import type { CommandBus } from '@nestjs/cqrs';
import type { Kysely } from 'kysely';
import { z } from 'zod';
import type { Answer } from '../src/automation/ask.js';
import { actionOf, type ActionTrace, evaluationId, type Occasion, traceAction } from '../src/automation/evaluation.store.js';
import { type Action, type Rule, ruleAggregate, type RuleEvent, type RuleMessage, spokenName } from '../src/automation/rule.js';
import type { CommandContext } from '../src/commands/command-context.js';
import {
  AddTags,
  AssignConversation,
  ChangeConversation,
  type ConversationChanged,
  RemoveTag,
  ReplyToConversation,
  SnoozeConversation,
} from '../src/conversations/conversation.commands.js';
import type { MessageInput } from '../src/conversations/conversation.sealing.js';
import type { Database } from '../src/database/database.js';
import type { EventStore } from '../src/event-store/event-store.js';
import { StatesAt } from '../src/event-store/states-at.js';
import { derivedId } from '../src/ids.js';
import { causedBy, isRefused } from './command-of-job.js';
import type { JobKind } from './runtime/job-runner.js';
import type { NewJob } from './runtime/jobs.js';

export const RULE_ACTION = 'rule-action';

/** The memory for rules whose actions are being done (bytes). */
const RULE_BYTES = 4 * 1024 * 1024;

const payloadSchema = z.strictObject({
  conversationId: z.string(),
  ruleId: z.string(),
  /** The rule acts as it was when it matched. */
  ruleRevision: z.number().int(),
  /** The event that it was asked about, and its evaluation. */
  eventId: z.string(),
  evaluationId: z.string(),
  index: z.number().int(),
  /** When the event happened, or the wait was over (ms): what `seconds` count from. */
  at: z.number(),
  causationDepth: z.number().int(),
  correlationId: z.string(),
});
type Payload = z.infer<typeof payloadSchema>;

/** A job for each action of a rule that matched. All actions of rules on one conversation are done one after the other, in order. */
export function ruleActionJobs(
  occasion: Occasion,
  { ruleId, ruleRevision, actions }: Answer,
  { causationDepth, correlationId }: { readonly causationDepth: number; readonly correlationId: string },
): NewJob[] {
  const { organizationId, conversationId, eventId, at } = occasion;
  const id = evaluationId(ruleId, occasion);
  return actions.map((_, index) => ({
    kind: RULE_ACTION,
    key: `${id}.${index}`,
    lane: `rules ${organizationId}.${conversationId}`,
    receiver: organizationId,
    organizationId,
    payload: {
      conversationId,
      ruleId,
      ruleRevision,
      eventId,
      evaluationId: id,
      index,
      at,
      causationDepth,
      correlationId,
    } satisfies Payload,
  }));
}

/**
 * Does an action of a rule as a command, whose id derives from the evaluation (of rule and event) and the action: done again, it is answered
 * by what it did before. A refused action is traced, and later ones are done.
 */
export function doRuleActions(parts: {
  readonly commands: CommandBus;
  readonly store: EventStore;
  readonly database: Kysely<Database>;
}): JobKind {
  const { commands, store, database } = parts;
  const rules = new StatesAt<Rule, RuleEvent>(store, ruleAggregate, RULE_BYTES);
  return {
    kind: RULE_ACTION,
    backoff: { first: 500, longest: 60_000 },
    // A command may have to wait for a store: an organization whose conversations are all busy must not take everybody's places.
    fair: true,
    async handle({ organizationId, payload, attempt }) {
      const { conversationId, ruleId, ruleRevision, index, at, evaluationId: id, ...cause } = payloadSchema.parse(payload);
      const rule = await rules.at(organizationId, ruleId, ruleRevision);
      const action = rule.actions[index];
      if (action === undefined) throw new Error(`the rule ${ruleId} has no action ${index} at revision ${ruleRevision}`);
      // An earlier attempt may have ended between its command and the end of its job.
      if (attempt > 1) {
        const traced = await actionOf(database, organizationId, id, index);
        if (traced !== undefined && traced.outcome !== 'pending') return 'done';
      }
      const context: CommandContext = {
        organizationId,
        actor: { type: 'automation', id: ruleId },
        commandId: derivedId('rule-action', id, String(index)),
        ...causedBy({ eventId: cause.eventId, correlationId: cause.correlationId, depth: cause.causationDepth }),
        ...(attempt > 1 ? { thorough: true } : {}),
      };
      await traceAction(
        database,
        organizationId,
        id,
        index,
        await outcomeOf(action, () => commands.execute(commandOf(action, rule, conversationId, at, context))),
      );
      return 'done';
    },
  };
}

async function outcomeOf({ type }: Action, run: () => Promise<ConversationChanged>): Promise<ActionTrace> {
  try {
    const { events } = await run();
    return { type, outcome: events.length === 0 ? 'nothing' : 'done', eventIds: events.map(({ id }) => id) };
  } catch (error) {
    if (!isRefused(error)) throw error;
    return { type, outcome: 'refused', code: error.code, eventIds: [] };
  }
}

function commandOf(action: Action, rule: Rule, id: string, at: number, context: CommandContext) {
  switch (action.type) {
    case 'assign':
      return new AssignConversation(context, id, { assigneeId: action.assigneeId });
    case 'unassign':
      return new AssignConversation(context, id, { assigneeId: null });
    case 'addTag':
      return new AddTags(context, id, [action.tag]);
    case 'removeTag':
      return new RemoveTag(context, id, action.tag);
    case 'reply':
    case 'note':
      return new ReplyToConversation(context, spokenName(rule), id, action.type, messageOf(action.message));
    case 'setStatus':
      return new ChangeConversation(context, id, { status: action.status });
    case 'setPriority':
      return new ChangeConversation(context, id, { priority: action.priority });
    case 'snooze':
      return new SnoozeConversation(context, id, action.until ?? new Date(at + (action.seconds ?? 0) * 1_000).toISOString());
  }
}

const messageOf = (message: RuleMessage): MessageInput => (typeof message === 'string' ? { type: 'text', content: message } : message);
