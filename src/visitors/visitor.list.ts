import { sql, type SqlBool } from 'kysely';
import { emailKey } from '../texts/email-address.js';
import { PLUS_HINT } from '../http/validation.js';
import { type FoldList, wholeFold } from '../read-models/fold-list.js';
import { type VisitorAnswer, visitorAnswer } from './visitor.answer.js';
import { type VisitorRow, visitorsTable } from './visitor.table.js';

/** Also filters by companyId, userId and email (in any spelling). */
export const visitorList: FoldList<VisitorRow, VisitorAnswer> = {
  name: 'visitors',
  table: visitorsTable,
  select: wholeFold,
  answer: (row) => visitorAnswer(row.id, row.state, row.revision),
  filters: {
    companyId: (value) => sql<SqlBool>`t.company_id = ${value}`,
    userId: (value) => sql<SqlBool>`t.user_id = ${value}`,
    email: (value) => sql<SqlBool>`t.email_key = ${emailKey(value)}`,
  },
  // An address holds no white space, but a + in a query string arrives as a space.
  faults: { email: (value) => (/\s/.test(value.trim()) ? `must be an e-mail address; ${PLUS_HINT}` : undefined) },
};
