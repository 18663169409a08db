import { foldTable, type FoldRow } from '../read-models/fold-table.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { type Webhook, webhookAggregate } from './webhook.js';

/** Archived means deleted; `name` is the URL. */
export interface WebhookRow extends FoldRow<Webhook> {
  name: string;
}

export const webhooksTable = foldTable<Webhook, WebhookRow>({
  name: 'webhooks',
  group: CORE_GROUP,
  version: 1,
  aggregate: webhookAggregate,
  columns: { name: 'text not null' },
  values: ({ url, archived }) => ({ name: url, archived }),
});
