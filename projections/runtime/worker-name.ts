import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';

/** A worker's unique name in leases and for operators: host, process id, and a random part for a process that starts anew. */
export const workerName = (): string => `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`;
