import { sql } from 'kysely';
import type { StreamName } from '../event-store/event-store.js';
import { type Command, CommandFailed, type ExitCode, parseCommandLine, WrongUsage } from './command.js';
import { type Session, withSession } from './session.js';
import { streamArgument } from './stream-argument.js';
import { counted, type Terminal } from './terminal.js';

export const parkedCommand: Command = {
  help: `Usage: threadlog parked list [--json]
       threadlog parked retry [STREAM] [--json]
       threadlog parked skip STREAM [--json]

When the read models or a reactor cannot handle an event, they park its stream and go on with the others; the stream's later events wait in
the log.

list names the parked streams with event and error, and the events that were skipped earlier.
retry handles a stream's events from the parked one on, in order, and unparks the stream. Without STREAM it retries every parked stream.
When an event still cannot be handled, the stream stays parked with the new error, and the command ends with 1.
skip passes over the parked event for good and then retries the stream. The event stays in the log, but the rows never show its change;
threadlog projections rebuild --with-skipped handles skipped events again.

  --json    print one JSON document: {parked: […], skipped: […]} or {streams: [{group, stream, skipped, handled, parked}]}`,

  async run([action, ...given], terminal, signal) {
    switch (action) {
      case 'list':
        return list(given, terminal);
      case 'retry':
        return retry(given, terminal, signal);
      case 'skip':
        return skip(given, terminal, signal);
      case undefined:
        throw new WrongUsage('list, retry or skip is missing');
      default:
        throw new WrongUsage(`there is no "parked ${action}"`);
    }
  },
};

const COMMON = { json: { type: 'boolean' } } as const;

/** Parked streams of reactors and of the generations that this build shows, oldest first. */
async function parkedStreams({ backend: { database, readModels } }: Session) {
  return await database
    .selectFrom('keep.parked as p')
    .leftJoin('read.checkpoints as c', 'c.generation', 'p.generation')
    .leftJoin('keep.reactors as r', (join) => join.onRef('r.name', '=', 'p.group_name').on('p.generation', '=', 0))
    .select(['p.group_name', 'p.stream', 'p.revision', 'p.position', 'p.event_id', 'p.type', 'p.error', 'p.at'])
    .where((eb) =>
      eb.or([
        eb.and([eb('c.live', '=', true), eb('c.version', '=', 0), eb('c.shape', 'in', [...readModels.shapes.values()])]),
        eb('r.name', 'is not', null),
      ]),
    )
    .orderBy('p.at')
    .orderBy('p.stream')
    .execute();
}

async function list(given: readonly string[], terminal: Terminal) {
  const { values } = parseCommandLine(given, COMMON, []);
  return withSession(async (session) => {
    const parked = (await parkedStreams(session)).map((row) => ({
      group: row.group_name,
      stream: row.stream,
      revision: row.revision,
      position: row.position,
      eventId: row.event_id,
      type: row.type,
      error: row.error,
      at: row.at.toISOString(),
    }));
    const skipped = await session.backend.database
      .selectFrom('keep.skipped')
      .select(['group_name as group', 'stream', 'revision', 'event_id as eventId', 'type', 'error'])
      .select(sql<string>`to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`.as('at'))
      .orderBy('at')
      .execute();
    if (values.json === true) {
      terminal.json({ parked, skipped });
      return 0;
    }
    terminal.table(
      ['GROUP', 'SINCE', 'STREAM', 'REVISION', 'TYPE', 'ERROR'],
      parked.map((one) => [one.group, one.at, one.stream, String(one.revision), one.type, one.error]),
      'No stream is parked.',
    );
    if (skipped.length > 0) {
      terminal.answer('');
      terminal.answer(`Skipped: ${counted(skipped.length, 'event')}.`);
      for (const one of skipped) terminal.answer(`  ${one.stream} revision ${one.revision}, ${one.type}, on ${one.at}: ${one.error}`);
    }
    return 0;
  });
}

async function retry(given: readonly string[], terminal: Terminal, signal: AbortSignal) {
  const named = given.some((word) => !word.startsWith('-'));
  const { values, positionals } = parseCommandLine(given, COMMON, named ? ['STREAM'] : []);
  const [name] = positionals;
  return replay(name, false, values.json === true, terminal, signal);
}

async function skip(given: readonly string[], terminal: Terminal, signal: AbortSignal) {
  const { values, positionals } = parseCommandLine(given, COMMON, ['STREAM']);
  return replay(positionals[0], true, values.json === true, terminal, signal);
}

async function replay(
  given: string | undefined,
  skips: boolean,
  json: boolean,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<ExitCode> {
  const name = given === undefined ? undefined : streamArgument(given);
  const [
    { GROUPS, reactorsOf },
    { batchDecoder, sealedDecoder },
    { replayParked, replayParkedOfReactor },
    { Jobs },
    { openWorkerSessions },
  ] = await Promise.all([
    import('../../projections/registry.js'),
    import('../event-decoding.js'),
    import('../../projections/runtime/unparking.js'),
    import('../../projections/runtime/jobs.js'),
    import('../../projections/runtime/sessions.js'),
  ]);
  return withSession(async (session) => {
    const { store, keys, databaseUrl, logger, timersClock } = session.backend;
    const wanted = (await parkedStreams(session)).filter(({ stream }) => name === undefined || stream === name);
    if (name !== undefined && wanted.length === 0) throw new CommandFailed(`${name} is not parked`);
    const onError = (error: Error) => logger.warn({ error: error.message }, 'a database connection broke');
    const sessions = openWorkerSessions(databaseUrl, { name: 'threadlog-parked', poolSize: 1, connectTimeoutMs: 20_000, onError });
    const reactors = reactorsOf(session.backend);
    const jobs = new Jobs(sessions.kysely, timersClock);
    const streams = [];
    try {
      for (const { group_name: group, stream } of wanted) {
        signal.throwIfAborted();
        const projections = GROUPS[group]?.();
        const reactor = reactors.find((one) => one.name === group);
        terminal.progress(`${streams.length} of ${counted(wanted.length, 'stream')} retried`);
        const options = { store, database: sessions.kysely, log: logger };
        const replayed =
          projections !== undefined
            ? await replayParked({ ...options, group, projections, decode: batchDecoder(keys) }, stream as StreamName, { skip: skips })
            : reactor !== undefined
              ? await replayParkedOfReactor({ ...options, reactor, jobs, decode: sealedDecoder }, stream as StreamName, { skip: skips })
              : undefined;
        // Somebody else has retried it in the meantime.
        if (replayed !== undefined) streams.push({ group, stream, ...replayed });
      }
    } finally {
      await sessions.close();
    }
    if (json) terminal.json({ streams });
    else if (streams.length === 0) terminal.answer('No stream is parked.');
    else
      for (const { group, stream, skipped, handled, parked } of streams) {
        if (skipped !== null)
          terminal.answer(
            `${stream}: ${skipped.type} at revision ${skipped.revision} (event ${skipped.eventId}, position ${skipped.position}) is passed over. ` +
              `It stays in the log; what it says is lost to ${group}.`,
          );
        terminal.answer(
          parked === null
            ? `${stream}: ${counted(handled, 'event')} handled; it goes on`
            : `${stream}: ${counted(handled, 'event')} handled; parked at revision ${parked.revision}, ${parked.type}: ${parked.error}`,
        );
      }
    return streams.some(({ parked }) => parked !== null) ? 1 : 0;
  });
}
