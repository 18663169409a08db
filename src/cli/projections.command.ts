import { MOST_COUNTED, projectionLag } from '../metrics/projection-lag.js';
import { shortShape } from '../read-models/groups.js';
import type { GenerationHealth } from '../read-models/checkpoints.js';
import { type Command, CommandFailed, oneOf, parseCommandLine, WrongUsage } from './command.js';
import { withSession } from './session.js';
import { count, counted, type Terminal } from './terminal.js';

export const projectionsCommand: Command = {
  help: `Usage: threadlog projections list [--json]
       threadlog projections rebuild [GROUP] [--with-skipped] [--json]
       threadlog projections pause [GROUP|REACTOR] [--json]
       threadlog projections resume [GROUP|REACTOR] [--json]

list shows the progress of every group of read models and every reactor, who works on it, and running rebuilds. SHAPE identifies the tables
of one build: a new build fills its own tables while an older one goes on, and tables that nobody has worked on for a day are dropped.
rebuild fills a group's read models again from the log's beginning, beside the live ones, and then switches to the new ones. Requests and
the live group go on meanwhile. An interrupted rebuild changes nothing. Without GROUP it rebuilds every group.
pause stops the workers of a group or reactor, in every process and after restarts, until resume. Jobs that a reactor made before are still
done. Without a name it pauses every group of read models, and no reactor.

  --with-skipped    handle the events that threadlog parked skip has passed over
  --json            print one JSON document: {groups: […], reactors: […]}, {rebuilt: [{group, generation, events, position, parked, oldDropped,
                    seconds, eventsPerSecond}]} or {groups: [{group, paused}], reactors: [{reactor, paused}]}`,

  async run([action, ...given], terminal, signal) {
    switch (action) {
      case 'list':
        return list(given, terminal);
      case 'rebuild':
        return rebuild(given, terminal, signal);
      case 'pause':
        return pause(given, terminal, true);
      case 'resume':
        return pause(given, terminal, false);
      case undefined:
        throw new WrongUsage('list, rebuild, pause or resume is missing');
      default:
        throw new WrongUsage(`there is no "projections ${action}"`);
    }
  },
};

const COMMON = { json: { type: 'boolean' } } as const;

const groupsOfThisBuild = async () => (await import('../../projections/registry.js')).GROUPS;

async function list(given: readonly string[], terminal: Terminal) {
  const { values } = parseCommandLine(given, COMMON, []);
  return withSession(async ({ backend: { store, checkpoints, clock } }) => {
    const known = await checkpoints.generations();
    // A position in another log says nothing about this log.
    const comparable = known.every(({ live, position, logId }) => !live || position === 'start' || logId === store.log.id);
    const reacting = await checkpoints.reactors();
    const reactorsComparable = reacting.every(({ position, logId }) => position === 'start' || logId === store.log.id);
    const lags = comparable && reactorsComparable ? await projectionLag(store, checkpoints, clock.now()) : { groups: [], reactors: [] };
    const rows = [];
    for (const one of known) {
      const { group, generation, live, position, events, owner, idleMs, parked, stopped, ofThisBuild } = one;
      const lag = lags.groups.find((other) => other.generation === generation)?.events ?? null;
      const shown = known.find((other) => other.group === group && other.shape === one.shape && other.live && other.phase === null);
      const other = known.find((older) => older.group === group && older.live && older.phase === null);
      rows.push({
        group,
        generation,
        shape: shapeSaid(one),
        ofThisBuild,
        live,
        status: statusOf(one),
        position,
        events,
        lag,
        lagIsExact: lag !== null && lag < MOST_COUNTED,
        owner,
        idleSeconds: Math.round(idleMs / 1_000),
        parked,
        stopped,
        rebuild: one.phase === null ? null : { phase: one.phase, percent: percentOf(events, shown?.events ?? other?.events ?? 0) },
      });
    }
    const reactors = reacting.map((one) => {
      const { reactor, position, owner, idleMs, parked, stopped } = one;
      const lag = lags.reactors.find((other) => other.reactor === reactor)?.events ?? null;
      const lagIsExact = lag !== null && lag < MOST_COUNTED;
      const status = statusOf({ ...one, live: true, phase: null });
      return {
        reactor,
        status,
        position,
        events: one.events,
        lag,
        lagIsExact,
        owner,
        idleSeconds: Math.round(idleMs / 1_000),
        parked,
        stopped,
      };
    });
    if (values.json === true) terminal.json({ groups: rows, reactors });
    else {
      terminal.table(
        ['GROUP', 'GENERATION', 'SHAPE', 'STATUS', 'POSITION', 'EVENTS', 'LAG', 'OWNER', 'PARKED'],
        rows.map((row) => [
          row.group,
          String(row.generation),
          row.shape,
          row.rebuild === null
            ? row.status
            : [
                row.status,
                ...(row.rebuild.percent === null ? [] : [`${row.rebuild.percent}%`]),
                ...(row.live ? [] : [row.rebuild.phase]),
              ].join(' '),
          row.position,
          count(row.events),
          row.lag === null ? '' : `${count(row.lag)}${row.lagIsExact ? '' : '+'}`,
          row.owner ?? '',
          String(row.parked),
        ]),
        'There are no read models yet: start Threadlog once.',
      );
      if (reactors.length > 0) {
        terminal.answer('');
        terminal.table(
          ['REACTOR', 'STATUS', 'POSITION', 'EVENTS', 'LAG', 'OWNER', 'PARKED'],
          reactors.map(({ reactor, status, position, events, lag, lagIsExact, owner, parked }) => [
            reactor,
            status,
            position,
            count(events),
            lag === null ? '' : `${count(lag)}${lagIsExact ? '' : '+'}`,
            owner ?? '',
            String(parked),
          ]),
          '',
        );
      }
      for (const { group, generation, stopped } of rows)
        if (stopped !== null) terminal.answer(`${group} (generation ${generation}) stopped: ${stopped}`);
      for (const { reactor, stopped } of reactors) if (stopped !== null) terminal.answer(`${reactor} stopped: ${stopped}`);
    }
    return 0;
  });
}

/** Older builds counted their read models instead. */
const shapeSaid = ({ version, shape }: GenerationHealth) => (version === 0 ? shortShape(shape) : `v${version}`);

type Status = 'working' | 'filling' | 'paused' | 'stopped' | 'nobody works on it' | 'rebuilding' | 'abandoned' | 'replaced';

function statusOf({
  live,
  phase,
  owner,
  stopped,
  paused,
}: Pick<GenerationHealth, 'live' | 'phase' | 'owner' | 'stopped' | 'paused'>): Status {
  if (!live) return phase === null ? 'replaced' : owner === null ? 'abandoned' : 'rebuilding';
  if (stopped !== null) return 'stopped';
  if (paused) return 'paused';
  if (owner === null) return 'nobody works on it';
  return phase === null ? 'working' : 'filling';
}

/** Compares with the number of events that the live generation has handled, which the new one has to reach. Null when it is unknown. */
function percentOf(events: number, expected: number): number | null {
  return expected === 0 ? null : Math.min(Math.floor((events / expected) * 100), 99);
}

async function rebuild(given: readonly string[], terminal: Terminal, signal: AbortSignal) {
  const named = given.some((word) => !word.startsWith('-'));
  const {
    values,
    positionals: [name],
  } = parseCommandLine(given, { ...COMMON, 'with-skipped': { type: 'boolean' } } as const, named ? ['GROUP'] : []);
  const known = await groupsOfThisBuild();
  const names = name === undefined ? Object.keys(known) : [oneOf('GROUP', name, Object.keys(known))];
  const [{ rebuildGroup, RebuildRunning }, { batchDecoder }] = await Promise.all([
    import('../../projections/runtime/rebuild.js'),
    import('../event-decoding.js'),
  ]);
  return withSession(async ({ backend: { store, keys, logger, databaseUrl } }) => {
    const rebuilt = [];
    for (const group of names) {
      const began = performance.now();
      try {
        const result = await rebuildGroup({
          group,
          projections: known[group]?.() ?? [],
          decode: batchDecoder(keys),
          store,
          databaseUrl,
          log: logger,
          signal,
          withSkipped: values['with-skipped'] === true,
          onProgress: ({ phase, events, expected }) => {
            const percent = percentOf(events, expected);
            const rate = count(events / ((performance.now() - began) / 1_000));
            terminal.progress(
              `${group}: ${phase}, ${counted(events, 'event')}${percent === null ? '' : ` (${percent}%)`}, ${rate} a second`,
            );
          },
        });
        const seconds = (performance.now() - began) / 1_000;
        rebuilt.push({
          group,
          ...result,
          seconds: Math.round(seconds * 10) / 10,
          eventsPerSecond: Math.round(result.events / seconds),
        });
      } catch (error) {
        if (error instanceof RebuildRunning) throw new CommandFailed(error.message, { cause: error });
        throw error;
      }
    }
    if (values.json === true) terminal.json({ rebuilt });
    for (const { group, generation, events, seconds, eventsPerSecond, parked, oldDropped } of rebuilt) {
      if (values.json !== true)
        terminal.answer(
          `${group}: generation ${generation} is live; ${counted(events, 'event')} in ${seconds} s, ${count(eventsPerSecond)} a second`,
        );
      if (parked > 0) terminal.note(`${group}: ${counted(parked, 'stream')} parked; threadlog parked list names them`);
      if (!oldDropped) terminal.note(`${group}: somebody still reads the old tables; the next rebuild drops them`);
    }
    return 0;
  });
}

async function pause(given: readonly string[], terminal: Terminal, paused: boolean) {
  const named = given.some((word) => !word.startsWith('-'));
  const {
    values,
    positionals: [name],
  } = parseCommandLine(given, COMMON, named ? ['NAME'] : []);
  const [{ GROUPS, REACTORS }, { pauseWork }] = await Promise.all([
    import('../../projections/registry.js'),
    import('../../projections/runtime/lease.js'),
  ]);
  const names = name === undefined ? Object.keys(GROUPS) : [oneOf('NAME', name, [...Object.keys(GROUPS), ...Object.keys(REACTORS)])];
  return withSession(async ({ backend: { database, checkpoints, readModels } }) => {
    const [health, reacting] = await Promise.all([checkpoints.health(), checkpoints.reactors()]);
    const told = { groups: [] as object[], reactors: [] as object[] };
    for (const one of names) {
      const group = readModels.groups.find((of) => of.name === one);
      const there = group === undefined ? reacting.some(({ reactor }) => reactor === one) : health.some((of) => of.group === one);
      if (!there) throw new CommandFailed(`${one} was never started: start Threadlog once`);
      const changed = await pauseWork(database, group === undefined ? { reactor: one } : { group }, paused);
      if (group === undefined) told.reactors.push({ reactor: one, paused });
      else told.groups.push({ group: one, paused });
      if (values.json === true) continue;
      if (!changed) terminal.answer(`${one} is ${paused ? 'paused' : 'not paused'} already`);
      else terminal.answer(paused ? `${one} is paused: nothing is handled until threadlog projections resume ${one}` : `${one} goes on`);
    }
    if (values.json === true) terminal.json(told);
    return 0;
  });
}
