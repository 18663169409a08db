import { type OpenDatabase, openDatabase } from '../../src/database/database.js';
import { WORKER_SESSION } from './lease.js';

/** Opens the sessions that write batches. WORKER_SESSION's settings are added to the address; the address keeps its own settings. */
export function openWorkerSessions(url: string, options: Omit<Parameters<typeof openDatabase>[0], 'url' | 'settings'>): OpenDatabase {
  const address = new URL(url);
  const given = address.searchParams.get('options');
  const own = Object.entries(WORKER_SESSION).map(([name, value]) => `-c ${name}=${value}`);
  address.searchParams.set('options', [...(given === null ? [] : [given]), ...own].join(' '));
  return openDatabase({ url: address.toString(), ...options });
}
