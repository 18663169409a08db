import { type FoldList, wholeFold } from '../read-models/fold-list.js';
import { type ApiKeyAnswer, apiKeyAnswer } from './api-key.answer.js';
import { type ApiKeyRow, apiKeysTable } from './api-key.table.js';

export const apiKeyList: FoldList<ApiKeyRow, ApiKeyAnswer> = {
  name: 'api-keys',
  table: apiKeysTable,
  select: wholeFold,
  answer: (row) => apiKeyAnswer(row.id, row.state, row.revision),
};
