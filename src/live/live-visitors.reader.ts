import { Inject, Injectable } from '@nestjs/common';
import type { Kysely } from 'kysely';
import { type VisitorBrief, visitorBrief } from '../conversations/conversation.answer.js';
import { DATABASE, type Database } from '../database/database.js';
import { ReadModels } from '../read-models/read-models.js';
import { visitorsTable } from '../visitors/visitor.table.js';

/**
 * Reads the visitors of many events in one query. Their table is written in the same transactions as the table of events, so it holds what
 * was stored before an event that was read there.
 */
@Injectable()
export class LiveVisitors {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
  ) {}

  /** Those of these visitors that are in the table, by id. @throws the database's error */
  async find(organizationId: string, ids: ReadonlySet<string>): Promise<ReadonlyMap<string, VisitorBrief>> {
    if (ids.size === 0) return new Map();
    const rows = await this.database
      .selectFrom(this.readModels.view(visitorsTable).as('v'))
      .select(['v.id', 'v.user_id', 'v.name', 'v.email', 'v.phone', 'v.avatar_url', 'v.plan', 'v.company_id'])
      .where('v.organization_id', '=', organizationId)
      .where('v.id', 'in', [...ids])
      .execute();
    return new Map(
      rows.map(({ id, user_id: userId, avatar_url: avatarUrl, company_id: companyId, ...row }) => [
        id,
        visitorBrief(id, { ...row, userId, avatarUrl, companyId }),
      ]),
    );
  }
}
