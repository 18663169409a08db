import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';

/** What tells a worker from every other, in leases and for operators: where it runs, its process, and chance for a process that starts anew. */
export const workerName = (): string => `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`;
