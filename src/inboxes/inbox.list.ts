import { sql } from 'kysely';
import { organizationsTable } from '../organizations/organization.table.js';
import { type FoldList, wholeFold } from '../read-models/fold-list.js';
import { type InboxAnswer, inboxAnswer } from './inbox.answer.js';
import { inboxesTable, type InboxRow } from './inbox.table.js';

export const inboxList: FoldList<InboxRow & { is_default: boolean }, InboxAnswer> = {
  name: 'inboxes',
  table: inboxesTable,
  join: (readModels) =>
    sql`left join ${readModels.view(organizationsTable)} o on o.organization_id = t.organization_id and o.id = t.organization_id`,
  select: sql`${wholeFold}, coalesce(o.default_inbox_id = t.id, false) as is_default`,
  answer: (row) => inboxAnswer(row.id, row.state, row.revision, row.is_default),
};
