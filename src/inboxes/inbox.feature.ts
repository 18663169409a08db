import { type Feature, streamOf } from '../feature.js';
import { inboxAggregate } from './inbox.js';
import { inboxesTable } from './inbox.table.js';

export const inboxesFeature: Feature = {
  streams: [streamOf(inboxAggregate, { toldAs: 'inbox', unreadable: 'stops' })],
  tables: [inboxesTable],
  histories: async () => [(await import('./inbox.history.js')).inboxHistory],
  api: async () => (await import('./inbox.module.js')).InboxesModule,
};
