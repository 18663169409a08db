import { type Feature, streamOf } from '../feature.js';
import { companyAggregate } from './company.js';
import { companiesTable } from './company.table.js';

export const companiesFeature: Feature = {
  streams: [streamOf(companyAggregate, { toldAs: 'company', unreadable: 'stops' })],
  tables: [companiesTable],
  histories: async () => [(await import('./company.history.js')).companyHistory],
  api: async () => (await import('./company.module.js')).CompaniesModule,
};
