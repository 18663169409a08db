import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, sql } from 'kysely';
import { DATABASE, type Database } from '../database/database.js';
import { isMissingRelation } from '../database/missing-relation.js';
import { EVENT_STORE, type EventStore } from '../event-store/event-store.js';
import { Checkpoints } from '../read-models/checkpoints.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { ReadModels } from '../read-models/read-models.js';
import { rulesTable } from './rule.table.js';

/** How long a count waits for the rules that were saved before it (ms). A list that is further behind is counted as it is. */
const WAIT_MS = 1_000;

/** Counts an organization's rules by their list. Rules that are saved at the same time may not be counted yet. */
@Injectable()
export class RulesCount {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
    @Inject(Checkpoints) private readonly checkpoints: Checkpoints,
    @Inject(EVENT_STORE) private readonly store: EventStore,
  ) {}

  /** The rules that are enabled and not archived. @throws the database's error */
  async inForce(organizationId: string): Promise<number> {
    const head = await this.store.head();
    if (head !== 'start') await this.checkpoints.waitFor(CORE_GROUP, head, WAIT_MS);
    try {
      const { rows } = await sql<{ count: number }>`
        select count(*)::int as count from ${this.readModels.view(rulesTable)}
        where organization_id = ${organizationId} and not archived and (state ->> 'enabled')::boolean`.execute(this.database);
      return rows[0]?.count ?? 0;
    } catch (error) {
      // Before the first start has made the read models there are no rules.
      if (isMissingRelation(error)) return 0;
      throw error;
    }
  }
}
