import { publicEventBody, visitorEvent } from '../conversations/public-event.answer.js';
import type { VisitorBrief } from '../conversations/conversation.answer.js';
import type { PublicEvent } from '../conversations/public-events.reader.js';
import type { Position } from '../event-store/event-store.js';
import type { CallerPositions } from '../security/caller-positions.js';
import { type Audience, LiveFrame } from './live-frame.js';
import type { Placed } from './live-filter.js';

/** What is needed to make the frames of an event. */
export interface FrameMaking {
  readonly positions: CallerPositions;
  readonly visitorOf: (told: PublicEvent) => Promise<VisitorBrief>;
}

/** One public event of the log on its way to sockets, with its frame for each audience, made once and only where somebody gets it. */
export class LiveEvent {
  readonly conversationId: string;
  readonly visitorId: string;
  /** The conversation before and after. */
  readonly places: readonly Placed[];
  readonly #frames = new Map<Audience, LiveFrame | undefined>();

  constructor(readonly told: PublicEvent) {
    const { before, after, event } = told;
    this.conversationId = told.conversationId;
    this.visitorId = after.visitorId;
    const opened = event.type === 'ConversationOpened';
    this.places = (opened ? [after] : [before, after]).map((c) => ({ inboxId: c.inboxId, assigneeId: c.assignee?.id ?? null }));
  }

  /** The position of the stored event. */
  get position(): Position {
    return this.told.event.position;
  }

  /** The size of the largest frame that was made. */
  get bytes(): number {
    return Math.max(0, ...[...this.#frames.values()].map((frame) => frame?.size ?? 0));
  }

  /** Makes the frame of an audience. @throws the error of `visitorOf`, and of an event that cannot be told */
  async make(audience: Audience, making: FrameMaking): Promise<void> {
    if (!this.isMade(audience)) this.#frames.set(audience, await this.#frameOf(audience, making));
  }

  /** Whoever is of this audience is not told of the event. */
  withhold(audience: Audience): void {
    this.#frames.set(audience, undefined);
  }

  isMade(audience: Audience): boolean {
    return this.#frames.has(audience);
  }

  /** Undefined when the audience is not told of this event. To be made before. */
  frame(audience: Audience): LiveFrame | undefined {
    if (!this.isMade(audience)) throw new Error('a frame was asked for before it was made');
    return this.#frames.get(audience);
  }

  async #frameOf(audience: Audience, { positions, visitorOf }: FrameMaking): Promise<LiveFrame | undefined> {
    const { told, visitorId } = this;
    if (audience === 'visitors') {
      // All sockets that get it are of the one visitor.
      const position = positions.told({ organizationId: told.organizationId, visitorId }, told.position);
      const said = visitorEvent(told, position);
      return said === undefined ? undefined : new LiveFrame({ type: said.type, data: said.body, position });
    }
    const visitor = await visitorOf(told);
    return new LiveFrame({
      type: told.type,
      data: publicEventBody(told, visitor, audience === 'analysts'),
      position: told.position,
    });
  }
}
