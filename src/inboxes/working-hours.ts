import type { Weekday, WorkingHours } from './inbox.js';

/** Time zones are few, and each formatter costs as much to make as thousands of uses. */
const FORMATS = new Map<string, Intl.DateTimeFormat>();

function formatOf(timeZone: string): Intl.DateTimeFormat {
  const known = FORMATS.get(timeZone);
  if (known !== undefined) return known;
  const made = new Intl.DateTimeFormat('en-US', { timeZone, weekday: 'long', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  FORMATS.set(timeZone, made);
  return made;
}

/**
 * Whether an instant lies within working hours. The clock on the wall of the time zone decides: an hour that the clock skips has no
 * instant, and both passes of an hour that comes twice count. An interval includes its beginning and not its end; 24:00 is the day's end.
 * @param instantMs milliseconds since 1970, UTC
 */
export function isWithinWorkingHours({ timezone, schedule }: WorkingHours, instantMs: number): boolean {
  let day = '';
  let hour = '';
  let minute = '';
  for (const { type, value } of formatOf(timezone).formatToParts(instantMs)) {
    if (type === 'weekday') day = value.toLowerCase();
    else if (type === 'hour') hour = value;
    else if (type === 'minute') minute = value;
  }
  // Times have a fixed width, so they compare as texts.
  const time = `${hour}:${minute}`;
  return schedule[day as Weekday]?.some(([from, to]) => from <= time && time < to) === true;
}
