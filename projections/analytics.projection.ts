import { LRUCache } from 'lru-cache';
import { sql } from 'kysely';
import {
  episodeRow,
  type EpisodeRow,
  episodesTable,
  factRow,
  type FactRow,
  factsTable,
  type InboxHoursRow,
  inboxHoursTable,
  spanRow,
  type SpanRow,
  spansTable,
  talliesTable,
  type TallyRow,
} from '../src/analytics/fact.tables.js';
import { countEvent, initialTally, type Tally } from '../src/analytics/tally.js';
import type { ConversationEvent } from '../src/conversations/conversation.js';
import type { Recorded } from '../src/event-store/aggregate.js';
import type { InboxEvent, WorkingHours } from '../src/inboxes/inbox.js';
import type { FoldingProjection, ProjectedEvent, ProjectionTarget } from './runtime/projection.js';
import { readRows } from './runtime/rows.js';

interface Known {
  readonly state: Tally;
  readonly revision: number;
}

/** The working hours of an inbox from an event on. */
type HoursFrom = Pick<InboxHoursRow, 'revision' | 'position' | 'hours'>;

const KNOWN_TALLIES = 30_000;
const KNOWN_INBOXES = 5_000;

/** Writes the facts from which analytics are computed. No text is opened: nothing personal is counted. */
export class AnalyticsProjection implements FoldingProjection {
  readonly name = 'analytics';
  readonly kinds = ['conversation', 'inbox'] as const;
  readonly tables = [factsTable, episodesTable, spansTable, talliesTable, inboxHoursTable];
  private readonly tallies = new LRUCache<string, Known>({ max: KNOWN_TALLIES });
  /** All working hours that an inbox ever had, oldest first. A parked stream may be counted long after its events. */
  private readonly hours = new LRUCache<string, HoursFrom[]>({ max: KNOWN_INBOXES });

  async apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void> {
    const before = await this.read(events, target);
    const hours = await this.readHours(events, before, target);
    const rows = new BatchRows();
    for (const one of events) {
      const { kind, organizationId, streamId, event, skipped } = one;
      if (kind === 'inbox') {
        if (skipped) continue;
        const row = hoursRow(organizationId, streamId, event as Recorded<InboxEvent>);
        if (row === undefined) continue;
        const known = hours.get(keyOf(organizationId, streamId));
        if (known === undefined) throw new Error(`the hours of the inbox ${streamId} were not read`);
        // Delivered again: the row is there.
        if ((known.at(-1)?.revision ?? -1) >= row.revision) continue;
        known.push(row);
        rows.hours.push(row);
        continue;
      }
      const key = keyOf(organizationId, streamId);
      const known = before.get(key) ?? { state: initialTally, revision: -1 };
      // Delivered again: the rows already include the event.
      if (event.revision <= known.revision) continue;
      if (event.revision !== known.revision + 1) throw new Error(`revision ${event.revision} of ${event.stream} follows ${known.revision}`);
      const hoursOf = (inboxId: string) => inForce(hours.get(keyOf(organizationId, inboxId)), event.position);
      const counted = skipped ? { tally: known.state, spans: [] } : countEvent(known.state, event as Recorded<ConversationEvent>, hoursOf);
      before.set(key, { state: counted.tally, revision: event.revision });
      rows.count(organizationId, streamId, event, counted, known.revision === -1);
    }
    for (const [key, { organizationId, id }] of rows.touched) {
      const known = before.get(key);
      if (known === undefined) continue;
      this.tallies.set(key, known);
      rows.tally({ organization_id: organizationId, conversation_id: id, revision: known.revision, state: known.state });
    }
    await rows.write(target);
  }

  forget(): void {
    this.tallies.clear();
    this.hours.clear();
  }

  /** The tallies of the batch's conversations before the batch. */
  private async read(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<Map<string, Known>> {
    const before = new Map<string, Known>();
    const seen = new Set<string>();
    const missing: Pick<TallyRow, 'organization_id' | 'conversation_id'>[] = [];
    for (const { kind, organizationId, streamId, event } of events) {
      if (kind !== 'conversation') continue;
      const key = keyOf(organizationId, streamId);
      if (seen.has(key)) continue;
      seen.add(key);
      const known = this.tallies.get(key);
      if (known !== undefined) before.set(key, known);
      else if (event.revision !== 0) missing.push({ organization_id: organizationId, conversation_id: streamId });
    }
    for (const { organization_id, conversation_id, state, revision } of await readRows(target, talliesTable, missing))
      before.set(keyOf(organization_id, conversation_id), { state, revision });
    return before;
  }

  /** The working hours of every inbox that the batch can ask for. */
  private async readHours(
    events: readonly ProjectedEvent[],
    before: ReadonlyMap<string, Known>,
    target: ProjectionTarget,
  ): Promise<ReadonlyMap<string, HoursFrom[]>> {
    const wanted = new Map<string, { readonly organizationId: string; readonly inboxId: string }>();
    const want = (organizationId: string, inboxId: string) => wanted.set(keyOf(organizationId, inboxId), { organizationId, inboxId });
    for (const { kind, organizationId, streamId, event, skipped } of events) {
      if (kind === 'inbox') want(organizationId, streamId);
      else if (!skipped) {
        const { type, data } = event as Recorded<ConversationEvent>;
        if (type === 'ConversationOpened') want(organizationId, data.inboxId);
        else if (type === 'InboxChanged') want(organizationId, data.to);
        const inboxId = before.get(keyOf(organizationId, streamId))?.state.inboxId;
        if (inboxId !== undefined) want(organizationId, inboxId);
      }
    }
    const found = new Map<string, HoursFrom[]>();
    const missing = [...wanted].filter(([key]) => {
      const known = this.hours.get(key);
      if (known !== undefined) found.set(key, known);
      return known === undefined;
    });
    if (missing.length === 0) return found;
    for (const [key] of missing) found.set(key, []);
    const { rows } = await sql<InboxHoursRow>`
      select h.* from unnest(${missing.map(([, one]) => one.organizationId)}::text[], ${missing.map(([, one]) => one.inboxId)}::text[])
        as wanted(organization_id, inbox_id)
      join ${sql.raw(target.table(inboxHoursTable.name))} h using (organization_id, inbox_id)
      order by h.organization_id, h.inbox_id, h.revision`.execute(target.session);
    for (const { organization_id, inbox_id, revision, position, hours } of rows)
      found.get(keyOf(organization_id, inbox_id))?.push({ revision, position, hours });
    for (const [key] of missing) this.hours.set(key, found.get(key) ?? []);
    return found;
  }
}

const keyOf = (organizationId: string, id: string) => `${organizationId}.${id}`;

/** The hours before an event; an inbox without hours is always open. */
function inForce(known: readonly HoursFrom[] | undefined, position: string): WorkingHours | null {
  if (known === undefined) throw new Error('the hours of an inbox were not read');
  return known.findLast((one) => one.position < position)?.hours ?? null;
}

/** The row of an event that sets an inbox's hours. */
function hoursRow(organizationId: string, inboxId: string, event: Recorded<InboxEvent>): InboxHoursRow | undefined {
  if (event.type !== 'InboxCreated' && event.type !== 'InboxChanged') return undefined;
  const { workingHours } = event.data;
  if (workingHours === undefined) return undefined;
  const { revision, position } = event;
  return { organization_id: organizationId, inbox_id: inboxId, revision, position, hours: workingHours };
}

/** The rows of a batch, of each key the latest. */
class BatchRows {
  readonly facts: FactRow[] = [];
  readonly hours: InboxHoursRow[] = [];
  /** The conversations of which an event was counted, by key; `made`: their first event is in this batch. */
  readonly touched = new Map<string, { readonly organizationId: string; readonly id: string; readonly made: boolean }>();
  readonly #tallies = new Changes<TallyRow>();
  readonly #episodes = new Changes<EpisodeRow>();
  readonly #spans = new Changes<SpanRow>();

  count(
    organizationId: string,
    id: string,
    { revision, position }: { readonly revision: number; readonly position: string },
    { fact, episode, spans }: Omit<ReturnType<typeof countEvent>, 'tally'>,
    made: boolean,
  ): void {
    const key = keyOf(organizationId, id);
    if (!this.touched.has(key)) this.touched.set(key, { organizationId, id, made });
    if (fact !== undefined) this.facts.push(factRow(organizationId, id, revision, fact));
    if (episode !== undefined)
      this.#episodes.set(`${key} ${episode.episode}`, episodeRow(organizationId, id, position, episode), episode.revision === revision);
    for (const span of spans)
      this.#spans.set(`${key} ${span.revision}`, spanRow(organizationId, id, position, span), span.revision === revision);
  }

  tally(row: TallyRow): void {
    const key = keyOf(row.organization_id, row.conversation_id);
    this.#tallies.set(key, row, this.touched.get(key)?.made === true);
  }

  async write(target: ProjectionTarget): Promise<void> {
    if (this.facts.length > 0) await target.write(factsTable, { made: this.facts, changed: [] });
    if (this.hours.length > 0) await target.write(inboxHoursTable, { made: this.hours, changed: [] });
    if (!this.#episodes.isEmpty) await target.write(episodesTable, this.#episodes.rows);
    if (!this.#spans.isEmpty) await target.write(spansTable, this.#spans.rows);
    if (!this.#tallies.isEmpty) await target.write(talliesTable, this.#tallies.rows);
  }
}

/** Rows of one table that a batch makes or changes. */
class Changes<R extends object> {
  readonly #rows = new Map<string, { readonly row: R; readonly made: boolean }>();

  /** @param made this event makes the row; otherwise the row is there, or was made earlier in the batch */
  set(key: string, row: R, made: boolean): void {
    this.#rows.set(key, { row, made: made || this.#rows.get(key)?.made === true });
  }

  get isEmpty(): boolean {
    return this.#rows.size === 0;
  }

  get rows(): { made: R[]; changed: R[] } {
    const made: R[] = [];
    const changed: R[] = [];
    for (const one of this.#rows.values()) (one.made ? made : changed).push(one.row);
    return { made, changed };
  }
}
