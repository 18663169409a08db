import type { Feature } from '../feature.js';

export const consoleFeature: Feature = {
  streams: [],
  tables: [],
  api: async () => (await import('./console.module.js')).ConsoleModule,
};
