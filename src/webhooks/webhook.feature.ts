import { type Feature, streamOf } from '../feature.js';
import { webhookAggregate } from './webhook.js';
import { webhooksTable } from './webhook.table.js';

export const webhooksFeature: Feature = {
  streams: [streamOf(webhookAggregate, { toldAs: 'webhook', unreadable: 'parks' })],
  tables: [webhooksTable],
  histories: async () => [(await import('./webhook.history.js')).webhookHistory],
  api: async () => (await import('./webhook.module.js')).WebhooksModule,
};
