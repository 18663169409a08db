import { LRUCache } from 'lru-cache';
import { type Conversation, type ConversationEvent, evolveConversation, initialConversation } from '../src/conversations/conversation.js';
import type { Unsealed } from '../src/conversations/conversation.sealing.js';
import { type ConversationRow, conversationsTable, rowOfConversation, stateOfRow } from '../src/conversations/conversation.table.js';
import type { DomainEvent, Recorded } from '../src/event-store/aggregate.js';
import { unsealed } from '../src/event-decoding.js';
import type { Position } from '../src/event-store/event-store.js';
import type { FoldingProjection, ProjectedEvent, ProjectionTarget } from './runtime/projection.js';
import { readRows } from './runtime/rows.js';

/** The state of a conversation that is remembered between batches: its row's content as a fold. */
interface Known {
  readonly state: Conversation<Unsealed>;
  readonly revision: number;
}

const KNOWN_BYTES = 64 * 1024 * 1024;

/** Estimates the memory of a conversation: at most two bytes a character for its texts, and about a kilobyte for the rest. */
function weightOf({ state }: Known): number {
  const { lastMessage, shown, customAttributes, tags, subject } = state;
  const texts: unknown[] = [lastMessage, subject, tags, customAttributes];
  if (shown.lastMessage !== lastMessage) texts.push(shown.lastMessage);
  return 1_024 + 2 * texts.reduce<number>((length, value) => length + (value === null ? 0 : JSON.stringify(value).length), 0);
}

const isMessage = ({ type }: DomainEvent) => type === 'MessageReceived' || type === 'MessageSent' || type === 'NoteAdded';

/**
 * The events of a stream whose messages are left at their end: the last one, and the last one that is not a note. The texts of all others are
 * replaced within the batch, so they are folded sealed: opening a text costs more than folding its event. A damaged text that is
 * replaced in the batch that brings it therefore parks nothing; `threadlog verify` finds it.
 */
function keptMessages(events: readonly ProjectedEvent[]): readonly (ProjectedEvent | undefined)[] {
  const last = events.findLast(({ event, skipped }) => skipped !== true && isMessage(event));
  if (last?.event.type !== 'NoteAdded') return [last];
  return [last, events.findLast(({ event, skipped }) => skipped !== true && isMessage(event) && event.type !== 'NoteAdded')];
}

/**
 * Writes one row per conversation: the fold of its stream with personal fields unsealed, in columns that lists filter and sort by. A batch
 * is folded in memory and written in one statement, however many events each conversation has in it.
 */
export class ConversationListProjection implements FoldingProjection {
  readonly name = 'conversation-list';
  readonly kinds = ['conversation'] as const;
  readonly tables = [conversationsTable];
  private readonly known: LRUCache<string, Known>;

  /** @param maxBytes limit of the memory kept between batches */
  constructor(maxBytes = KNOWN_BYTES) {
    this.known = new LRUCache<string, Known>({ max: 20_000, maxSize: maxBytes, sizeCalculation: weightOf });
  }

  async apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void> {
    const touched = new Map<string, { organizationId: string; id: string; events: ProjectedEvent[] }>();
    for (const one of events) {
      const { organizationId, streamId: id } = one;
      const key = `${organizationId}.${id}`;
      const entry = touched.get(key);
      if (entry === undefined) touched.set(key, { organizationId, id, events: [one] });
      else entry.events.push(one);
    }
    // Holds every conversation of this batch, since the memory may drop some of them while the batch is folded.
    const before = new Map<string, Known>();
    const missing: Pick<ConversationRow, 'organization_id' | 'id'>[] = [];
    for (const [key, { organizationId, id, events: own }] of touched) {
      const known = this.known.get(key);
      if (known !== undefined) before.set(key, known);
      else if (own[0]?.event.revision !== 0) missing.push({ organization_id: organizationId, id });
    }
    for (const row of await readRows(target, conversationsTable, missing))
      before.set(`${row.organization_id}.${row.id}`, { state: stateOfRow(row), revision: row.revision });

    const made: ConversationRow[] = [];
    const changed: ConversationRow[] = [];
    for (const [key, { organizationId, id, events: own }] of touched) {
      let known: Known = before.get(key) ?? { state: initialConversation, revision: -1 };
      const rows = known.revision === -1 ? made : changed;
      let position: Position | undefined;
      const kept = keptMessages(own);
      for (const one of own) {
        const { event, skipped } = one;
        // Delivered again: the row already includes the event.
        if (event.revision <= known.revision) continue;
        if (event.revision !== known.revision + 1)
          throw new Error(`revision ${event.revision} of ${event.stream} follows ${known.revision}`);
        const state = skipped
          ? known.state
          : evolveConversation(
              known.state,
              (isMessage(event) && !kept.includes(one) ? event : unsealed(one)) as Recorded<ConversationEvent<Unsealed>>,
            );
        known = { state, revision: event.revision };
        position = event.position;
      }
      if (position === undefined) continue;
      this.known.set(key, known);
      rows.push(rowOfConversation(organizationId, id, known.state, { revision: known.revision, position }));
    }
    await target.write(conversationsTable, { made, changed });
  }

  forget(): void {
    this.known.clear();
  }
}
