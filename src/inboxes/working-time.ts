import { type Weekday, WEEKDAYS, type WorkingHours } from './inbox.js';

/*
 * How much of a span of time lies within working hours. The clock on the wall of the time zone decides, as in isWithinWorkingHours(): an
 * hour that the clock skips has no length, and an hour that comes twice counts twice.
 */

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const WEEK = 7 * DAY;
/** The first Monday on or after the beginning of 1970, on the clock on the wall. */
const FIRST_MONDAY = 4 * DAY;

/** @returns milliseconds of [fromMs, toMs) within the working hours; all of them when there are none, since no hours mean always open */
export function workingTime(hours: WorkingHours | null, fromMs: number, toMs: number): number {
  if (toMs <= fromMs) return 0;
  if (hours === null) return toMs - fromMs;
  const week = weekOf(hours.schedule);
  let sum = 0;
  for (let at = fromMs; at < toMs;) {
    const { offset, until } = offsetAt(hours.timezone, at);
    const end = Math.min(until, toMs);
    // The clock on the wall runs evenly up to the next change of the zone's offset.
    sum += week.before(end + offset) - week.before(at + offset);
    at = end;
  }
  return sum;
}

/** A week of working hours on the clock on the wall. */
class Week {
  readonly #intervals: readonly (readonly [number, number])[];
  readonly #total: number;

  constructor(schedule: WorkingHours['schedule']) {
    this.#intervals = WEEKDAYS.flatMap((day: Weekday, i) =>
      (schedule[day] ?? []).map(([from, to]) => [i * DAY + timeOf(from), i * DAY + timeOf(to)] as const),
    );
    this.#total = this.#intervals.reduce((sum, [from, to]) => sum + to - from, 0);
  }

  /** Working time before an instant on the clock on the wall, counted from the first Monday of 1970. */
  before(wall: number): number {
    const since = wall - FIRST_MONDAY;
    const weeks = Math.floor(since / WEEK);
    const rest = since - weeks * WEEK;
    let sum = weeks * this.#total;
    for (const [from, to] of this.#intervals) {
      if (from >= rest) break;
      sum += Math.min(to, rest) - from;
    }
    return sum;
  }
}

/** A schedule never changes in place, so its week is made once. */
const WEEKS = new WeakMap<WorkingHours['schedule'], Week>();

function weekOf(schedule: WorkingHours['schedule']): Week {
  const known = WEEKS.get(schedule);
  if (known !== undefined) return known;
  const made = new Week(schedule);
  WEEKS.set(schedule, made);
  return made;
}

/** Milliseconds from midnight to HH:MM. */
const timeOf = (text: string) => (Number(text.slice(0, 2)) * 60 + Number(text.slice(3))) * MINUTE;

/** A time in which a zone's offset stays the same. */
interface Steady {
  /** What to add to UTC for the clock on the wall (ms). */
  readonly offset: number;
  /** Where it ends at the earliest (ms since 1970, UTC). */
  readonly until: number;
}

/** Length of the pieces in which changes of an offset are looked for. No zone changes its offset twice in one. */
const PIECE = 8 * DAY;

/** The steady times of each piece, by zone and number of the piece. Some hundred pieces are enough for years in several zones. */
const PIECES = new Map<string, readonly Steady[]>();
const MOST_PIECES = 20_000;

function offsetAt(zone: string, at: number): Steady {
  const nr = Math.floor(at / PIECE);
  const key = `${nr} ${zone}`;
  let steady = PIECES.get(key);
  if (steady === undefined) {
    if (PIECES.size >= MOST_PIECES) PIECES.clear();
    PIECES.set(key, (steady = steadyTimes(zone, nr * PIECE, (nr + 1) * PIECE)));
  }
  const found = steady.find(({ until }) => at < until);
  if (found === undefined) throw new Error('the steady times of a piece must reach its end');
  return found;
}

function steadyTimes(zone: string, from: number, to: number): readonly Steady[] {
  const before = offset(zone, from);
  const after = offset(zone, to - MINUTE);
  if (before === after) return [{ offset: before, until: to }];
  // Zones change their offset at whole minutes.
  let low = from / MINUTE;
  let high = to / MINUTE - 1;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (offset(zone, middle * MINUTE) === before) low = middle;
    else high = middle;
  }
  return [
    { offset: before, until: high * MINUTE },
    { offset: after, until: to },
  ];
}

/** Time zones are few, and each formatter costs as much to make as thousands of uses. */
const FORMATS = new Map<string, Intl.DateTimeFormat>();

/** What the clock on the wall is ahead of UTC at an instant (ms). */
function offset(zone: string, at: number): number {
  let format = FORMATS.get(zone);
  if (format === undefined) {
    const fields = { year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric', second: 'numeric' } as const;
    FORMATS.set(zone, (format = new Intl.DateTimeFormat('en-US', { timeZone: zone, hourCycle: 'h23', era: 'short', ...fields })));
  }
  const parts: Record<string, number> = {};
  for (const { type, value } of format.formatToParts(at)) parts[type] = Number(value);
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
  return Date.UTC(year, month - 1, day, hour, minute, second) - at;
}
