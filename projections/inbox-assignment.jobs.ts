import type { CommandBus } from '@nestjs/cqrs';
import { z } from 'zod';
import { AssignAutomatically } from '../src/conversations/automatic-assignment.commands.js';
import type { AssigningInbox, AutomaticAssignmentReader, WaitingConversation } from '../src/conversations/automatic-assignment.reader.js';
import type { ConversationChanged } from '../src/conversations/conversation.commands.js';
import { conversationAggregate, type ConversationEvent } from '../src/conversations/conversation.js';
import { metadataOf } from '../src/event-store/aggregate.js';
import { type EventStore, type Position, streamName } from '../src/event-store/event-store.js';
import { lastEvent } from '../src/event-store/last-event.js';
import { derivedId } from '../src/ids.js';
import { mayHave, nextAgent } from '../src/inboxes/agent-choice.js';
import type { Checkpoints } from '../src/read-models/checkpoints.js';
import { CORE_GROUP } from '../src/read-models/groups.js';
import { ThreadlogError } from '../src/errors.js';
import { type Cause, causedBy, causeSchema, isRefused } from './command-of-job.js';
import type { JobKind, Outcome } from './runtime/job-runner.js';
import { type Job, JOB_LEASE_MS, type Jobs } from './runtime/jobs.js';

export const ASSIGN_WAITING = 'assign-waiting';

const payloadSchema = z.strictObject({
  /** The last event that the job was added for, and its position in the log. */
  last: causeSchema,
  position: z.string(),
  /** The conversations that these events belong to, each with its last event. */
  causes: z.record(z.string(), causeSchema),
});
export type AssignWaitingPayload = z.infer<typeof payloadSchema>;

/** How many waiting conversations one look at the read models gives. */
const PAGE = 500;
/** How long one attempt waits for the read models (ms). */
const READ_MODELS_MS = 5_000;
/** How long one look at the members may be used (ms): it shows what people do meanwhile only when it is taken again. */
const LOOK_MS = 50;
const BEHIND: Outcome = { againInMs: 250, because: 'the read models are behind' };

/**
 * Gives the conversations that wait in an organization's inboxes to members who are free, the one that has waited longest first. The jobs of
 * an organization are one lane, and each look at the members includes every assignment before it: so no place is counted twice. A repeated
 * job is harmless: what it gave before no longer waits, and a command that is sent again is answered from the log.
 */
export function assignWaitingJobs(parts: {
  readonly commands: CommandBus;
  readonly store: EventStore;
  readonly checkpoints: Checkpoints;
  readonly jobs: Jobs;
  readonly reader: AutomaticAssignmentReader;
}): JobKind {
  const { commands, store, checkpoints, jobs, reader } = parts;
  return {
    kind: ASSIGN_WAITING,
    backoff: { first: 200, longest: 10_000 },
    async handle(job, signal) {
      const { organizationId } = job;
      const { last: lastCause, position, causes } = payloadSchema.parse(job.payload);
      /** Conversations that this job has done with, whatever came of it. */
      const done = new Set<string>();
      let after = position as Position;
      for (;;) {
        if (signal.aborted) return { againInMs: 0, because: 'the process ended, or another has the job' };
        const head = await store.head();
        if (head !== 'start' && head > after) after = head;
        if ((await checkpoints.waitFor(CORE_GROUP, after, READ_MODELS_MS)) === 'behind') return BEHIND;
        const countedUntil = await ownUntil(jobs, job);
        if (countedUntil === undefined) return { againInMs: 0, because: 'another process has the job' };
        const look = new Look(await reader.inboxes(organizationId));
        const takenAt = performance.now();
        let last: WaitingConversation | undefined;
        let asked = 0;
        let stale = false;
        while (!stale && look.free.length > 0) {
          const page = await reader.waiting(organizationId, look.free, PAGE, last);
          for (const waiting of page) {
            const inbox = look.inboxFor(waiting);
            if (inbox === undefined || done.has(waiting.id)) continue;
            // Each look leads to one command at least, however slow the machine is.
            if (signal.aborted || (asked > 0 && performance.now() - takenAt > LOOK_MS)) {
              stale = true;
              break;
            }
            asked++;
            done.add(waiting.id);
            try {
              const cause = await deeper(store, organizationId, waiting.id, causes[waiting.id] ?? lastCause);
              const context = {
                organizationId,
                actor: { type: 'automation', id: waiting.inboxId } as const,
                commandId: derivedId('inbox-assignment', organizationId, cause.eventId, waiting.id),
                ...causedBy(cause),
              };
              const changed: ConversationChanged = await commands.execute(
                new AssignAutomatically(context, waiting.id, inbox, countedUntil),
              );
              if (changed.position > after) after = changed.position;
              look.note(changed);
            } catch (error) {
              // It was closed or erased meanwhile, or this build cannot read it: it must not keep the others waiting.
              if (!isRefused(error) && !isUnreadable(error)) throw error;
            }
          }
          last = page.at(-1);
          if (page.length < PAGE) break;
        }
        if (!stale) return 'done';
      }
    },
  };
}

/**
 * The conversation's last event if that is deeper than the cause of the job, which may be older, or in another conversation. Otherwise a rule
 * and an inbox that set each other off would begin at depth 0 again, and go on for ever.
 */
async function deeper(store: EventStore, organizationId: string, conversationId: string, cause: Cause): Promise<Cause> {
  const stream = streamName(conversationAggregate.kind, organizationId, conversationId);
  const last = await lastEvent(store, stream);
  if (last === undefined) return cause;
  const { correlationId, causationDepth: depth } = metadataOf(last);
  return depth > cause.depth ? { eventId: last.id, correlationId, depth } : cause;
}

/** Whether the conversation itself is at fault, such as by an event that this build does not know, and not its surroundings. */
const isUnreadable = (error: unknown) => error instanceof ThreadlogError && error.code === 'internal_error';

/** The time, by performance.now(), until which no other process takes this job; undefined when one has it. */
async function ownUntil(jobs: Jobs, job: Job): Promise<number | undefined> {
  const asked = performance.now();
  const held = await jobs.renew([job]);
  // The commands that are sent at the end of this time have the rest of the lease to reach the log.
  return held.has(job.id) ? asked + JOB_LEASE_MS / 3 : undefined;
}

/** One look at an organization's inboxes, with what was assigned since. */
class Look {
  readonly #inboxes: Map<string, AssigningInbox>;

  constructor(inboxes: readonly AssigningInbox[]) {
    this.#inboxes = new Map(inboxes.map((inbox) => [inbox.id, inbox]));
  }

  /** The inboxes with a member who is below the cap. */
  get free(): string[] {
    return [...this.#inboxes.values()].filter((inbox) => nextAgent(inbox, inbox.members, () => true) !== undefined).map(({ id }) => id);
  }

  /** The conversation's inbox; undefined when none of its members may have it now. */
  inboxFor({ inboxId, takenFrom, team }: WaitingConversation): AssigningInbox | undefined {
    const inbox = this.#inboxes.get(inboxId);
    return inbox === undefined || nextAgent(inbox, inbox.members, mayHave(takenFrom, team)) === undefined ? undefined : inbox;
  }

  /** Counts an assignment that this job made. */
  note({ outcome, events }: ConversationChanged): void {
    const event = events.at(-1) as (ConversationEvent & { readonly position: Position }) | undefined;
    if (outcome !== 'appended' || event?.type !== 'ConversationAssigned') return;
    const { assignee, reason } = event.data;
    for (const inbox of this.#inboxes.values())
      this.#inboxes.set(inbox.id, {
        ...inbox,
        members: inbox.members.map((one) =>
          one.id !== assignee.id
            ? one
            : { ...one, open: one.open + 1, lastTurn: inbox.id === reason?.inboxId ? event.position : one.lastTurn },
        ),
      });
  }
}
