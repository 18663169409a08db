import { conversationAggregate } from '../src/conversations/conversation.js';
import type { EventStore } from '../src/event-store/event-store.js';
import { StatesAt } from '../src/event-store/states-at.js';
import type { Transactor } from '../src/commands/transactor.js';
import { automaticAnswer } from '../src/inboxes/automatic-answer.js';
import { inboxAggregate } from '../src/inboxes/inbox.js';
import { ActingInboxes, type ActingInboxesParts } from './acting-inboxes.js';
import { ANSWER_VISITOR, type AnswerVisitorPayload } from './auto-responder.jobs.js';
import type { Reactor } from './runtime/reactor.js';

export const AUTO_RESPONDER = 'auto-responder';

/**
 * Adds a job for each visitor's message that its inbox would answer by itself, due after the inbox's delay. The command of the job decides
 * whether it still does.
 */
export function autoResponder(parts: ActingInboxesParts & { readonly store: EventStore; readonly transactor: Transactor }): Reactor {
  const { store, transactor } = parts;
  const inboxes = new ActingInboxes(parts, 'autoResponder', (setting) => setting?.enabled === true);
  const conversations = new StatesAt(store, conversationAggregate);
  return {
    name: AUTO_RESPONDER,
    begins: 'head',
    jobs: [ANSWER_VISITOR],
    forget: () => inboxes.forget(),
    reaction: {
      reads: 'decoded',
      events: { conversation: ['MessageReceived'], inbox: ['InboxCreated', 'InboxChanged'] },
      order: 'within streams',
      async handle(events, consequences) {
        for (const one of events) {
          const { kind, organizationId, streamId: conversationId, event } = one;
          if (kind === 'inbox') inboxes.see(one);
          if (kind === 'inbox' || event.metadata.imported === true) continue;
          if (!(await inboxes.any(organizationId, event.position))) continue;
          const { inboxId, episode, episodeEnded } = await conversations.at(organizationId, conversationId, event.revision);
          const inbox = (await transactor.load(inboxAggregate, organizationId, inboxId))?.state;
          const { occurredAt, correlationId, causationDepth: depth } = event.metadata;
          const writtenAt = Date.parse(occurredAt);
          if (inbox === undefined || automaticAnswer(inbox, writtenAt) === undefined) continue;
          const payload: AnswerVisitorPayload = {
            conversationId,
            inboxId,
            // A message to a resolved conversation begins the next episode.
            episode: episodeEnded ? episode + 1 : episode,
            eventId: event.id,
            revision: event.revision,
            writtenAt,
            correlationId,
            depth,
          };
          const delay = (inbox.autoResponder?.delaySeconds ?? 0) * 1_000;
          consequences.add({
            kind: ANSWER_VISITOR,
            key: event.id,
            organizationId,
            payload,
            ...(delay === 0 ? {} : { due: { at: writtenAt + delay } }),
          });
        }
      },
    },
  };
}
