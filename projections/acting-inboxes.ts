import { isMissingRelation } from '../src/database/missing-relation.js';
import { type Kysely, sql } from 'kysely';
import { LRUCache } from 'lru-cache';
import type { Database } from '../src/database/database.js';
import type { Recorded } from '../src/event-store/aggregate.js';
import type { Position } from '../src/event-store/event-store.js';
import type { Inbox, InboxEvent } from '../src/inboxes/inbox.js';
import { inboxesTable } from '../src/inboxes/inbox.table.js';
import type { Checkpoints } from '../src/read-models/checkpoints.js';
import { CORE_GROUP } from '../src/read-models/groups.js';
import type { ReadModels } from '../src/read-models/read-models.js';
import type { ProjectedEvent } from './runtime/projection.js';

const MOST_ORGANIZATIONS = 50_000;
/** How long the first event of an organization waits for the read model of inboxes (ms). */
const WAIT_MS = 500;
/** How long no event waits for it after it was behind (ms). */
const BEHIND_MS = 10_000;

export interface ActingInboxesParts {
  readonly database: Kysely<Database>;
  readonly readModels: ReadModels;
  readonly checkpoints: Checkpoints;
}

/**
 * Which organizations have an inbox with a setting that a reactor acts on, so that an event of any other organization costs a look into
 * memory. An organization's inboxes are read once from their read model, and then follow from the events that the reactor handles.
 */
export class ActingInboxes<F extends 'assignment' | 'autoResponder'> {
  /** By organization, the ids of the inboxes that act. */
  readonly #known = new LRUCache<string, Set<string>>({ max: MOST_ORGANIZATIONS });
  #behindUntil = 0;

  constructor(
    private readonly parts: ActingInboxesParts,
    private readonly field: F,
    private readonly acts: (setting: Inbox[F]) => boolean,
  ) {}

  /** Takes note of an event of an inbox. To be called for each that the reactor handles, in the order of the log. */
  see({ organizationId, streamId, event }: ProjectedEvent): void {
    const { type, data } = event as Recorded<InboxEvent>;
    const known = this.#known.get(organizationId);
    if (known === undefined || (type !== 'InboxCreated' && type !== 'InboxChanged')) return;
    const setting = data[this.field] as Inbox[F] | undefined;
    if (setting === undefined) return;
    if (this.acts(setting)) known.add(streamId);
    else known.delete(streamId);
  }

  /**
   * Whether an inbox of the organization acts at a position that the reactor has reached. Also true while that is not known.
   * @throws the database's error
   */
  async any(organizationId: string, position: Position): Promise<boolean> {
    let known = this.#known.get(organizationId);
    if (known === undefined) {
      const read = (await this.#reached(position)) ? await this.#read(organizationId) : undefined;
      if (read === undefined) return true;
      known = new Set(read);
      this.#known.set(organizationId, known);
    }
    return known.size > 0;
  }

  /** Forgets everything. Another process may have handled events in between. */
  forget(): void {
    this.#known.clear();
  }

  async #reached(position: Position): Promise<boolean> {
    const wait = performance.now() < this.#behindUntil ? 0 : WAIT_MS;
    if ((await this.parts.checkpoints.waitFor(CORE_GROUP, position, wait)) === 'reached') return true;
    this.#behindUntil = performance.now() + BEHIND_MS;
    return false;
  }

  /** Undefined while the read models are gone, as when somebody has dropped them. */
  async #read(organizationId: string): Promise<string[] | undefined> {
    const { database, readModels } = this.parts;
    try {
      const { rows } = await sql<{ id: string; setting: Inbox[F] }>`
        select id, state -> ${this.field} as setting from ${readModels.view(inboxesTable)}
        where organization_id = ${organizationId}`.execute(database);
      return rows.filter(({ setting }) => this.acts(setting)).map(({ id }) => id);
    } catch (error) {
      if (isMissingRelation(error)) return undefined;
      throw error;
    }
  }
}
