import type { Feature } from '../feature.js';
import { searchConversationsTable, searchMessagesTable, searchVisitorsTable } from './search.tables.js';

export const searchFeature: Feature = {
  streams: [],
  tables: [searchMessagesTable, searchConversationsTable, searchVisitorsTable],
  api: async () => (await import('./search.module.js')).SearchModule,
};
