import type { WorkingHours } from '../../src/inboxes/inbox.js';
import { isWithinWorkingHours } from '../../src/inboxes/working-hours.js';

const berlin: WorkingHours = {
  timezone: 'Europe/Berlin',
  schedule: {
    monday: [
      ['09:00', '12:30'],
      ['13:30', '18:00'],
    ],
    friday: [['22:00', '24:00']],
    saturday: [['00:00', '02:00']],
    sunday: [['02:00', '03:00']],
  },
};
const at = (instant: string, hours = berlin) => isWithinWorkingHours(hours, Date.parse(instant));

describe('working hours', () => {
  it.each([
    ['before the first interval', '2026-01-05T08:59:59.999+01:00', false],
    ['at its beginning', '2026-01-05T09:00:00+01:00', true],
    ['in its last minute', '2026-01-05T12:29:59.999+01:00', true],
    ['at its end', '2026-01-05T12:30:00+01:00', false],
    ['between two intervals', '2026-01-05T13:00:00+01:00', false],
    ['in the second interval', '2026-01-05T13:30:00+01:00', true],
    ['on a day off', '2026-01-06T10:00:00+01:00', false],
    ['before midnight, until 24:00', '2026-01-09T23:59:59.999+01:00', true],
    ['after midnight, where the next day begins at 00:00', '2026-01-10T00:00:00+01:00', true],
    ['at the end of the night', '2026-01-10T02:00:00+01:00', false],
  ])('%s', (_, instant, within) => expect(at(instant)).toBe(within));

  it('go by the clock on the wall in summer and in winter', () => {
    expect(at('2026-07-06T07:00:00Z')).toBe(true);
    expect(at('2026-07-06T16:00:00Z')).toBe(false);
    expect(at('2026-01-05T07:59:00Z')).toBe(false);
    expect(at('2026-01-05T16:59:00Z')).toBe(true);
  });

  it('leave out the hour that the clock skips, and count both passes of the hour that comes twice', () => {
    // 29 March 2026: 01:59:59 is followed by 03:00:00. 25 October 2026: 02:00 to 03:00 comes twice.
    expect(at('2026-03-29T00:59:59Z')).toBe(false);
    expect(at('2026-03-29T01:00:00Z')).toBe(false);
    expect([at('2026-10-24T23:59:59Z'), at('2026-10-25T00:00:00Z'), at('2026-10-25T01:59:59Z'), at('2026-10-25T02:00:00Z')]).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });

  it('know the day of the zone and not that of UTC', () => {
    const auckland: WorkingHours = { timezone: 'Pacific/Auckland', schedule: { monday: [['08:00', '10:00']] } };
    expect(at('2026-01-04T20:00:00Z', auckland)).toBe(true);
    expect(at('2026-01-05T20:00:00Z', auckland)).toBe(false);
    expect(at('2026-01-05T03:30:00Z', { timezone: 'Asia/Kathmandu', schedule: { monday: [['09:15', '09:16']] } })).toBe(true);
  });

  it('hold at no time when no day has an interval', () => {
    expect(at('2026-01-05T10:00:00Z', { timezone: 'UTC', schedule: {} })).toBe(false);
  });
});
