import {
  archiveInbox,
  changeInboxFields,
  createInbox,
  inboxAggregate,
  type InboxChanges,
  type InboxEvent,
  scheduleFaults,
  unarchiveInbox,
} from '../../src/inboxes/inbox.js';
import { timeZoneNamed } from '../../src/inboxes/time-zone.js';
import { given, instant } from '../support/given.js';

const manual = { mode: 'manual', agentIds: [], cap: null } as const;
const made: InboxEvent = { type: 'InboxCreated', data: { name: 'Sales', description: 'Offers', assignment: manual } };
const after = (...events: InboxEvent[]) => given(inboxAggregate, ...events);
const hours = {
  timezone: 'Europe/Berlin',
  schedule: {
    monday: [
      ['09:00', '12:00'],
      ['13:00', '24:00'],
    ],
  },
} as const;

describe('an inbox', () => {
  it('is made with what was given, and by hand assigned to nobody', () => {
    const state = after()
      .when(createInbox({ name: 'Sales', description: 'Offers', email: null, icon: undefined }))
      .thenEvents(made);
    expect(state).toEqual({
      exists: true,
      archived: false,
      name: 'Sales',
      description: 'Offers',
      email: null,
      color: null,
      icon: null,
      assignment: manual,
      workingHours: null,
      autoResponder: null,
      createdAt: instant(0),
      updatedAt: instant(0),
    });
  });

  it('comes back from the archive as it was', () => {
    const archived: InboxEvent = { type: 'InboxArchived', data: {} };
    const back = after(made, archived).when(unarchiveInbox()).thenEvents({ type: 'InboxUnarchived', data: {} });
    expect(back).toMatchObject({ archived: false, name: 'Sales', description: 'Offers' });
    after(made).when(unarchiveInbox()).thenNothing();
    after().when(unarchiveInbox()).thenRefused('not_found');
  });

  it('is not made under an id that is taken, archived or not', () => {
    after(made)
      .when(createInbox({ name: 'Other' }))
      .thenNothing();
    after(made, { type: 'InboxArchived', data: {} })
      .when(createInbox({ name: 'Other' }))
      .thenNothing();
  });

  it('keeps its settings in one form, whatever their order was when they were sent', () => {
    const sent: InboxChanges = {
      workingHours: {
        schedule: {
          tuesday: [],
          monday: [
            ['13:00', '24:00'],
            ['09:00', '12:00'],
          ],
        },
        timezone: 'Europe/Berlin',
      },
      assignment: { cap: 3, agentIds: ['b', 'a'], mode: 'round_robin' },
      autoResponder: { message: 'Soon', onlyOutsideWorkingHours: true, enabled: true, delaySeconds: 5 },
    };
    const changed: InboxEvent = {
      type: 'InboxChanged',
      data: {
        workingHours: hours,
        assignment: { mode: 'round_robin', agentIds: ['b', 'a'], cap: 3 },
        autoResponder: { enabled: true, message: 'Soon', delaySeconds: 5, onlyOutsideWorkingHours: true },
      },
    };
    after(made).when(changeInboxFields(sent)).thenEvents(changed);
    after(made, changed)
      .when(changeInboxFields({ workingHours: hours }))
      .thenNothing();
  });

  it('changes only the named fields that differ, and null clears', () => {
    const state = after(made)
      .when(changeInboxFields({ name: 'Sales', description: null, color: '#fff' }))
      .thenEvents({ type: 'InboxChanged', data: { description: null, color: '#fff' } });
    expect(state).toMatchObject({ name: 'Sales', description: null, color: '#fff', updatedAt: instant(1), createdAt: instant(0) });
    after(made).when(changeInboxFields({})).thenNothing();
  });

  it('changes no more once it is archived', () => {
    const archived = after(made).when(archiveInbox()).thenEvents({ type: 'InboxArchived', data: {} });
    expect(archived).toMatchObject({ archived: true, name: 'Sales' });
    after(made, { type: 'InboxArchived', data: {} })
      .when(changeInboxFields({ name: 'Sales' }))
      .thenRefused('resource_archived');
  });

  it('must exist to be changed or archived', () => {
    after()
      .when(changeInboxFields({ name: 'Sales' }))
      .thenRefused('not_found');
    after().when(archiveInbox()).thenRefused('not_found');
  });
});

describe('a schedule', () => {
  it.each<[unknown]>([
    [{}],
    [{ monday: [] }],
    [{ sunday: [['00:00', '24:00']] }],
    [
      {
        monday: [
          ['09:00', '12:00'],
          ['12:00', '17:00'],
        ],
        friday: [['22:00', '23:59']],
      },
    ],
    [
      {
        monday: [
          ['13:00', '17:00'],
          ['09:00', '12:00'],
        ],
      },
    ],
  ])('may be %j', (schedule) => {
    expect(scheduleFaults(schedule)).toBeUndefined();
  });

  it.each<[unknown]>([
    [null],
    [[]],
    ['monday'],
    [{ mon: [['09:00', '12:00']] }],
    [{ monday: null }],
    [{ monday: ['09:00', '12:00'] }],
    [{ monday: [['09:00']] }],
    [{ monday: [['09:00', '12:00', '13:00']] }],
    [{ monday: [['9:00', '12:00']] }],
    [{ monday: [['09:00', '24:01']] }],
    [{ monday: [['24:00', '24:00']] }],
    [{ monday: [['12:00', '12:00']] }],
    [{ monday: [['17:00', '09:00']] }],
    [
      {
        monday: [
          ['09:00', '12:00'],
          ['11:59', '13:00'],
        ],
      },
    ],
    [
      {
        monday: [
          ['11:59', '13:00'],
          ['09:00', '12:00'],
        ],
      },
    ],
    [{ monday: [['09:00', 12]] }],
    [{ monday: Array.from({ length: 13 }, (_, hour) => [`${10 + hour}:00`, `${10 + hour}:30`]) }],
  ])('may not be %j', (schedule) => {
    expect(scheduleFaults(schedule)?.length).toBeGreaterThan(0);
  });
});

describe('a time zone', () => {
  it.each([
    ['Europe/Berlin', 'Europe/Berlin'],
    ['europe/berlin', 'Europe/Berlin'],
    ['UTC', 'UTC'],
    ['utc', 'UTC'],
    ['AMERICA/ARGENTINA/BUENOS_AIRES', 'America/Argentina/Buenos_Aires'],
    // Both names of one zone, whichever of them the runtime lists.
    ['asia/kolkata', 'Asia/Kolkata'],
    ['asia/calcutta', 'Asia/Calcutta'],
    ['Europe/Kyiv', 'Europe/Kyiv'],
    ['Europe/Kiev', 'Europe/Kiev'],
    ['etc/gmt+5', 'Etc/GMT+5'],
    ['us/pacific', 'US/Pacific'],
    ['america/port-au-prince', 'America/Port-au-Prince'],
    ['antarctica/dumontdurville', 'Antarctica/DumontDUrville'],
    ['japan', 'Japan'],
  ])('%s is %s', (given, spelled) => {
    expect(timeZoneNamed(given)).toBe(spelled);
    expect(() => new Intl.DateTimeFormat('en', { timeZone: spelled })).not.toThrow();
  });

  it.each([
    'BST',
    'PST',
    'EST',
    'CET',
    'EST5EDT',
    'GMT',
    'IST',
    'GB',
    'ROC',
    'Mars/Olympus',
    '+01:00',
    'GMT+1',
    '',
    'Europe/Berlin ',
    'x'.repeat(65),
    'toString',
    'SystemV/PST8PDT',
    null,
    1,
    {},
  ])('is none by %j', (given) => {
    expect(timeZoneNamed(given)).toBeUndefined();
  });

  it('can be reckoned with by every name that is taken here', () => {
    const names = Intl.supportedValuesOf('timeZone');
    for (const name of names) expect([name, timeZoneNamed(name)]).toEqual([name, name]);
  });
});
