import { type Feature, streamOf } from '../feature.js';
import { apiKeyAggregate } from './api-key.js';
import { apiKeysTable } from './api-key.table.js';

export const apiKeysFeature: Feature = {
  streams: [streamOf(apiKeyAggregate, { toldAs: 'apiKey', unreadable: 'stops' })],
  tables: [apiKeysTable],
  histories: async () => [(await import('./api-key.history.js')).apiKeyHistory],
  api: async () => (await import('./api-key.module.js')).ApiKeysModule,
};
