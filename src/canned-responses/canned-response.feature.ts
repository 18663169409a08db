import { type Feature, streamOf } from '../feature.js';
import { cannedResponseAggregate } from './canned-response.js';
import { cannedResponsesTable } from './canned-response.table.js';

export const cannedResponsesFeature: Feature = {
  streams: [streamOf(cannedResponseAggregate, { toldAs: 'cannedResponse', unreadable: 'stops' })],
  tables: [cannedResponsesTable],
  histories: async () => [(await import('./canned-response.history.js')).cannedResponseHistory],
  api: async () => (await import('./canned-response.module.js')).CannedResponsesModule,
};
