import type { Feature } from '../feature.js';
import { eventsTable } from './events.table.js';

export const auditFeature: Feature = {
  streams: [],
  tables: [eventsTable],
  api: async () => (await import('./audit.module.js')).AuditModule,
};
