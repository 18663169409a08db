import { type Feature, streamOf } from '../feature.js';
import { viewAggregate } from './view.js';
import { viewsTable } from './view.table.js';

export const viewsFeature: Feature = {
  streams: [streamOf(viewAggregate, { toldAs: 'view', unreadable: 'parks' })],
  tables: [viewsTable],
  histories: async () => [(await import('./view.history.js')).viewHistory],
  api: async () => (await import('./view.module.js')).ViewsModule,
};
