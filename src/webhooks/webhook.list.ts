import { type FoldList, wholeFold } from '../read-models/fold-list.js';
import { type WebhookAnswer, webhookAnswer } from './webhook.answer.js';
import { type WebhookRow, webhooksTable } from './webhook.table.js';

export const webhookList: FoldList<WebhookRow, WebhookAnswer> = {
  name: 'webhooks',
  table: webhooksTable,
  select: wholeFold,
  answer: (row) => webhookAnswer(row.id, row.state, row.revision),
  named: 'url',
};
