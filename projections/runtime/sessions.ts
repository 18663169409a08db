import { type OpenDatabase, openDatabase } from '../../src/database/database.js';
import { WORKER_SESSION } from './lease.js';

/** Sessions that batches are written in: with WORKER_SESSION's settings, in the address, where those that it has stay in force as well. */
export function openWorkerSessions(url: string, options: Omit<Parameters<typeof openDatabase>[0], 'url' | 'settings'>): OpenDatabase {
  const address = new URL(url);
  const given = address.searchParams.get('options');
  const own = Object.entries(WORKER_SESSION).map(([name, value]) => `-c ${name}=${value}`);
  address.searchParams.set('options', [...(given === null ? [] : [given]), ...own].join(' '));
  return openDatabase({ url: address.toString(), ...options });
}
