import { createHash, createHmac, type Hash, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { migrations } from '../../migrations/migrations.js';
import type { Backend } from '../backend.js';
import { parseStreamName, type StreamName } from '../event-store/event-store.js';
import { eventsUntil } from '../event-store/events-until.js';
import { HeadKey, type LogFold, type LogHead, logHead, LOG_START, nextFold } from '../event-store/log-head.js';
import { ChainCheck } from '../event-store/log-verification.js';
import { type KeptRow, readKept } from '../database/keep-tables.js';
import type { MasterKey } from '../security/sealing.js';
import { CommandFailed } from './command.js';

/*
 * The file of an export: one JSON document a line. A header, the rows of the schema keep that the log cannot restore, a seal over all lines
 * before it, the events in feed order with their stored bytes, and an end with the signed head of the events. See docs/export.md.
 *
 * Without MASTER_KEY nobody can change a row (the seal) or an event (the head), or leave any of them out, without being noticed.
 */

/** Raised whenever older builds can no longer read the file. */
export const EXPORT_FORMAT = 1;

const counts = z.record(z.string(), z.number().int().min(0));

/** The first line. */
export const exportHeader = z.strictObject({
  threadlog: z.literal('export'),
  format: z.number().int().min(1),
  log: z.strictObject({ adapter: z.string(), id: z.string().min(1) }),
  /** The position of the last event that the export may contain. */
  until: z.string(),
  /** Null for all organizations. */
  organizationId: z.string().nullable(),
  /** The last migration of the source database. */
  migration: z.string(),
  /** Verifies that a MASTER_KEY is the one that opens the export. */
  masterKey: z.string(),
  at: z.string(),
});
export type ExportHeader = z.infer<typeof exportHeader>;

export const exportRow = z.strictObject({ keep: z.string(), row: z.record(z.string(), z.unknown()) });
export const exportSeal = z.strictObject({ kept: counts, seal: z.string().regex(/^[0-9a-f]{64}$/) });

/** An event with its stored texts unchanged, and its position in the source log. */
export const exportEvent = z.strictObject({
  position: z.string(),
  stream: z.string(),
  revision: z.number().int().min(0),
  id: z.string(),
  type: z.string(),
  data: z.string(),
  metadata: z.string(),
});
export type ExportEvent = z.infer<typeof exportEvent> & { readonly stream: StreamName };

/** The last line. `head` is the head of a log that holds exactly these events. */
export const exportEnd = z.strictObject({ end: z.literal(true), events: z.number().int().min(0), head: logHead });
export type ExportEnd = z.infer<typeof exportEnd>;

/** The proofs of an export that only a holder of MASTER_KEY can make. */
export class ExportKey {
  private readonly key: Buffer;
  private readonly head: HeadKey;
  private readonly sealed: Hash = createHash('sha256');

  constructor(masterKey: MasterKey) {
    this.key = masterKey.derive('log export');
    this.head = new HeadKey(masterKey);
  }

  /** The same for every holder of the key, and useless to anybody else. */
  check(logId: string): string {
    return this.mac(`check ${logId}`);
  }

  isOf({ masterKey, log }: ExportHeader): boolean {
    const given = Buffer.from(masterKey);
    const own = Buffer.from(this.check(log.id));
    return given.length === own.length && timingSafeEqual(given, own);
  }

  /** Adds the next line to the seal. */
  cover(line: string): void {
    this.sealed.update(line).update('\n');
  }

  /** The seal over all lines so far. */
  seal(): string {
    return this.mac(`seal ${this.sealed.copy().digest('hex')}`);
  }

  sign(fold: LogFold, logId: string): LogHead {
    return this.head.sign(fold, logId);
  }

  signed(head: LogHead): boolean {
    return this.head.signed(head);
  }

  private mac(text: string): string {
    return createHmac('sha256', this.key).update(text).digest('hex');
  }
}

/** The progress of an export. */
export interface Exported {
  events: number;
  readonly kept: Record<string, number>;
  /** Set at the end. */
  head: LogHead | undefined;
}

export interface ExportParts extends Pick<Backend, 'store' | 'database' | 'masterKey'> {
  /** ms */
  readonly now: number;
  /** Exports only this organization. */
  readonly organizationId?: string;
}

/**
 * The lines of an export, in chunks of text: everything that is in the log when the export begins. The rows are read after that moment, so
 * that every event finds its key. Never holds more than a batch in memory.
 * @param exported updated during the export
 * @throws CommandFailed when an event is not as it was written
 */
export async function* exportLog(parts: ExportParts, exported: Exported, signal: AbortSignal): AsyncGenerator<string, void, undefined> {
  const { store, database, masterKey, organizationId, now } = parts;
  const key = new ExportKey(masterKey);
  const end = await store.head();
  const header: ExportHeader = {
    threadlog: 'export',
    format: EXPORT_FORMAT,
    log: store.log,
    until: end,
    organizationId: organizationId ?? null,
    migration: latestMigration(),
    masterKey: key.check(store.log.id),
    at: new Date(now).toISOString(),
  };
  const covered = (value: ExportHeader | { keep: string; row: KeptRow }) => {
    const line = JSON.stringify(value);
    key.cover(line);
    return `${line}\n`;
  };
  yield covered(header);

  const includes = async (stream: StreamName) => {
    for await (const [first] of store.read(stream, { limit: 1 })) return first !== undefined && first.position <= end;
    return false;
  };
  for await (const rows of readKept(database, { ...(organizationId === undefined ? {} : { organizationId }), includes })) {
    signal.throwIfAborted();
    for (const { table } of rows) exported.kept[table] = (exported.kept[table] ?? 0) + 1;
    yield rows.map(({ table, row }) => covered({ keep: table, row })).join('');
  }
  yield `${JSON.stringify({ kept: exported.kept, seal: key.seal() })}\n`;

  const chain = new ChainCheck(store);
  let fold = LOG_START;
  for await (const events of eventsUntil(store, end, signal)) {
    const lines: string[] = [];
    for (const event of events) {
      if (organizationId !== undefined && parseStreamName(event.stream)?.organizationId !== organizationId) continue;
      const why = await chain.whyNot(event);
      if (why !== undefined)
        throw new CommandFailed(
          `${event.stream} revision ${event.revision} (position ${event.position}): ${why}; threadlog verify tells all of them`,
        );
      const { position, stream, revision, id, type, data, metadata } = event;
      lines.push(JSON.stringify({ position, stream, revision, id, type, data, metadata }), '\n');
      fold = nextFold(fold, event);
      exported.events++;
    }
    if (lines.length > 0) yield lines.join('');
  }
  exported.head = key.sign(fold, store.log.id);
  yield `${JSON.stringify({ end: true, events: fold.count, head: exported.head } satisfies ExportEnd)}\n`;
}

/** The names of migrations sort in their order. */
export function latestMigration(): string {
  return Object.keys(migrations).toSorted().at(-1) ?? '';
}

/** The header, if the line is one, by which an export is recognized. @throws CommandFailed for a header that this build cannot read */
export function headerOf(line: string): ExportHeader | undefined {
  if (!line.startsWith('{"threadlog":"export",')) return undefined;
  const value = jsonOf(line);
  const read = exportHeader.safeParse(value);
  if (read.success && read.data.format === EXPORT_FORMAT) return read.data;
  const { format } = z.object({ format: z.number() }).catch({ format: EXPORT_FORMAT }).parse(value);
  throw new CommandFailed(
    format === EXPORT_FORMAT
      ? 'its first line is damaged: it is no whole export'
      : `it is an export in the format ${format}, and this build reads the format ${EXPORT_FORMAT}`,
  );
}

/** Undefined for text that is not JSON. */
export function jsonOf(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return undefined;
  }
}
