import { foldTable, type FoldRow } from '../read-models/fold-table.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { organizationAggregate, type Organization } from './organization.js';

/** The id is the organization's id. */
export interface OrganizationRow extends FoldRow<Organization> {
  name: string;
  default_inbox_id: string | null;
}

export const organizationsTable = foldTable<Organization, OrganizationRow>({
  name: 'organizations',
  group: CORE_GROUP,
  version: 1,
  aggregate: organizationAggregate,
  columns: { name: 'text not null', default_inbox_id: 'text collate "C"' },
  values: (o) => ({ name: o.name, archived: false, default_inbox_id: o.defaultInboxId }),
});
