import type { Feature } from '../feature.js';

export const operationsFeature: Feature = {
  streams: [],
  tables: [],
  api: async () => (await import('./operations.module.js')).OperationsModule,
};
