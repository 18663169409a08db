import { type Feature, streamOf } from '../feature.js';
import { ruleAggregate } from './rule.js';
import { rulesTable } from './rule.table.js';

export const automationFeature: Feature = {
  // 'stops': without one rule, the rules after it would be asked about events that it stops.
  streams: [streamOf(ruleAggregate, { toldAs: 'automationRule', unreadable: 'stops' })],
  tables: [rulesTable],
  histories: async () => [(await import('./rule.history.js')).ruleHistory],
  api: async () => (await import('./automation.module.js')).AutomationModule,
};
