import { type FoldList, wholeFold } from '../read-models/fold-list.js';
import { type CompanyAnswer, companyAnswer } from './company.answer.js';
import { companiesTable, type CompanyRow } from './company.table.js';

export const companyList: FoldList<CompanyRow, CompanyAnswer> = {
  name: 'companies',
  table: companiesTable,
  select: wholeFold,
  answer: (row) => companyAnswer(row.id, row.state, row.revision),
};
