import { type Feature, streamOf } from '../feature.js';
import { organizationAggregate } from './organization.js';
import { organizationsTable } from './organization.table.js';

export const organizationsFeature: Feature = {
  streams: [streamOf(organizationAggregate, { toldAs: 'organization', unreadable: 'stops' })],
  tables: [organizationsTable],
  histories: async () => [(await import('./organization.history.js')).organizationHistory],
  api: async () => (await import('./organization.module.js')).OrganizationsModule,
};
