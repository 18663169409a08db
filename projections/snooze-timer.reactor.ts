import type { ConversationEvent } from '../src/conversations/conversation.js';
import type { Recorded } from '../src/event-store/aggregate.js';
import { causeOf } from './command-of-job.js';
import type { Reactor } from './runtime/reactor.js';
import { WAKE_CONVERSATION, type WakeConversationPayload } from './snooze-timer.jobs.js';

/**
 * Adds a job for each snooze that ends at a set time, one for each conversation, and removes it when the conversation is no longer snoozed.
 * The reactor begins at the log's start, so that snoozes from before reactors existed, or from an imported export, end too. A job that
 * comes too late does nothing: its command names the event that set the snooze.
 */
export const snoozeTimer: Reactor = {
  name: 'snooze-timer',
  begins: 'start',
  jobs: [WAKE_CONVERSATION],
  reaction: {
    reads: 'decoded',
    events: { conversation: ['ConversationSnoozed', 'ConversationStatusChanged'] },
    order: 'within streams',
    handle(events, consequences) {
      for (const { organizationId, streamId: conversationId, event } of events) {
        const { type, data, revision } = event as Recorded<ConversationEvent>;
        const job = { kind: WAKE_CONVERSATION, key: `${organizationId}.${conversationId}` };
        if (type === 'ConversationStatusChanged' && data.from !== 'snoozed') continue;
        consequences.remove(job);
        if (type !== 'ConversationSnoozed' || data.until === 'next_reply') continue;
        const payload: WakeConversationPayload = { conversationId, snoozeRevision: revision, cause: causeOf(event) };
        consequences.add({ ...job, organizationId, payload, due: { at: Date.parse(data.until) } });
      }
    },
  },
};
