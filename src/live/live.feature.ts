import type { Feature } from '../feature.js';

export const liveFeature: Feature = {
  streams: [],
  tables: [],
  api: async () => (await import('./live.module.js')).LiveModule,
};
