import { signal } from '@preact/signals';

/** The time of the page, which moves every half minute, so that nobody reads "now" for an hour. */
const now = signal(Date.now());
setInterval(() => (now.value = Date.now()), 30_000);

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

/** An instant in few letters, with all of it in its title. */
export function TimeSaid({ at }: { readonly at: string }) {
  const instant = new Date(at);
  return (
    <time dateTime={at} title={full.format(instant)}>
      {ago(instant, now.value)}
    </time>
  );
}

function ago(instant: Date, at: number): string {
  const ms = at - instant.getTime();
  if (ms < MINUTE) return 'now';
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min`;
  if (ms < DAY) return `${Math.floor(ms / HOUR)} h`;
  return day.format(instant);
}
