import { isWithinWorkingHours } from '../../src/inboxes/working-hours.js';
import { workingTime } from '../../src/inboxes/working-time.js';
import { WEEKDAYS, type Interval, type WorkingHours } from '../../src/inboxes/inbox.js';
import { seededRandom } from '../support/seeded-random.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** Counts the minutes at whose beginning the inbox is open. */
function minutes(hours: WorkingHours, from: number, to: number): number {
  let sum = 0;
  for (let at = from; at < to; at += MINUTE) if (isWithinWorkingHours(hours, at)) sum += MINUTE;
  return sum;
}

const OFFICE: Interval[] = [
  ['09:00', '12:30'],
  ['13:30', '18:00'],
];
const office = (timezone: string): WorkingHours => ({
  timezone,
  schedule: { monday: OFFICE, tuesday: OFFICE, wednesday: OFFICE, thursday: OFFICE, friday: [['09:00', '15:00']] },
});
const always = (timezone: string): WorkingHours => ({
  timezone,
  schedule: Object.fromEntries(WEEKDAYS.map((day) => [day, [['00:00', '24:00']]])),
});
const nights = (timezone: string): WorkingHours => ({
  timezone,
  schedule: Object.fromEntries(
    WEEKDAYS.map((day) => [
      day,
      [
        ['00:00', '03:15'],
        ['23:30', '24:00'],
      ],
    ]),
  ),
});
const at = Date.parse;

test.each([
  ['a lunch break', office('Europe/Berlin'), '2026-06-01T07:00:00Z', '2026-06-01T16:00:00Z', 8 * HOUR],
  ['a weekend', office('Europe/Berlin'), '2026-06-05T12:00:00Z', '2026-06-08T08:00:00Z', 2 * HOUR],
  ['parts of a minute', office('UTC'), '2026-06-01T08:59:59.250Z', '2026-06-01T09:00:00.750Z', 750],
  ['four weeks', office('UTC'), '2026-06-01T00:00:00Z', '2026-06-29T00:00:00Z', 4 * 38 * HOUR],
  ['a day that is an hour shorter', always('Europe/Berlin'), '2026-03-28T23:00:00Z', '2026-03-29T22:00:00Z', 23 * HOUR],
  ['a day that is an hour longer', always('Europe/Berlin'), '2026-10-24T22:00:00Z', '2026-10-25T23:00:00Z', 25 * HOUR],
  ['an hour that comes twice', nights('Europe/Berlin'), '2026-10-24T22:00:00Z', '2026-10-25T06:00:00Z', 4.25 * HOUR],
  ['an hour that is skipped', nights('Europe/Berlin'), '2026-03-28T23:00:00Z', '2026-03-29T06:00:00Z', 2.25 * HOUR],
  ['half an hour of daylight saving', always('Australia/Lord_Howe'), '2026-04-04T13:00:00Z', '2026-04-05T13:30:00Z', 24.5 * HOUR],
  ['a day that Samoa left out', always('Pacific/Apia'), '2011-12-30T09:00:00Z', '2011-12-30T11:00:00Z', 2 * HOUR],
  ['no time at all', office('UTC'), '2026-06-01T10:00:00Z', '2026-06-01T10:00:00Z', 0],
  ['no working hours', null, '2026-06-01T10:00:00Z', '2026-06-01T10:00:00.007Z', 7],
])('counts %s', (_, hours, from, to, expected) => {
  expect(workingTime(hours, at(from), at(to))).toBe(expected);
});

test('counts what the clock on the wall shows minute by minute', () => {
  const random = seededRandom(14);
  const zones = [
    'Europe/Berlin',
    'America/New_York',
    'Asia/Kolkata',
    'Australia/Lord_Howe',
    'Pacific/Apia',
    'Africa/Casablanca',
    'Asia/Tehran',
  ];
  const time = () => `${String(random.int(24)).padStart(2, '0')}:${String(random.int(60)).padStart(2, '0')}`;
  for (let i = 0; i < 60; i++) {
    const intervals = (): Interval[] => {
      const times = [...new Set([time(), time(), time(), time()])].sort();
      return times.length < 4
        ? []
        : [
            [times[0] ?? '', times[1] ?? ''],
            [times[2] ?? '', '24:00'],
          ];
    };
    const hours = {
      timezone: zones[i % zones.length] ?? 'UTC',
      schedule: Object.fromEntries(WEEKDAYS.filter(() => random.int(10) < 7).map((day) => [day, intervals()])),
    };
    // Half of the spans begin near a change of Berlin's and New York's clocks.
    const begin = i % 2 === 0 ? at('2026-10-24T00:00:00Z') : at('2026-03-07T00:00:00Z');
    const from = begin + random.int(3 * 24 * 60) * MINUTE;
    const to = from + random.int(9 * 24 * 60) * MINUTE;
    expect({ hours, from, to, time: workingTime(hours, from, to) }).toEqual({ hours, from, to, time: minutes(hours, from, to) });
  }
});
