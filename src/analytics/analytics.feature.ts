import type { Feature } from '../feature.js';
import { episodesTable, factsTable, inboxHoursTable, spansTable, talliesTable } from './fact.tables.js';

export const analyticsFeature: Feature = {
  streams: [],
  tables: [factsTable, episodesTable, spansTable, talliesTable, inboxHoursTable],
  api: async () => (await import('./analytics.module.js')).AnalyticsModule,
};
