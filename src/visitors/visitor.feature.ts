import { type Feature, streamOf } from '../feature.js';
import { visitorAggregate } from './visitor.js';
import { unsealVisitorEvent } from './visitor.sealing.js';
import { visitorsTable } from './visitor.table.js';

export const visitorsFeature: Feature = {
  streams: [streamOf(visitorAggregate, { toldAs: 'visitor', unreadable: 'parks', unseal: unsealVisitorEvent })],
  tables: [visitorsTable],
  histories: async () => [(await import('./visitor.history.js')).visitorHistory],
  api: async () => (await import('./visitor.module.js')).VisitorsModule,
};
