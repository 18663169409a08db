import { foldTable, type FoldRow } from '../read-models/fold-table.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { companyAggregate, type Company } from './company.js';

/** A company; `state` holds the whole state. */
export interface CompanyRow extends FoldRow<Company> {
  name: string;
}

export const companiesTable = foldTable<Company, CompanyRow>({
  name: 'companies',
  group: CORE_GROUP,
  version: 1,
  aggregate: companyAggregate,
  columns: { name: 'text not null' },
  values: ({ name, archived }) => ({ name, archived }),
});
