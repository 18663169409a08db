import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { CallerPositions } from '../../src/security/caller-positions.js';

const positions = new CallerPositions(randomBytes(32));
const ada = { organizationId: 'main', visitorId: 'ada' };
const key = { organizationId: 'main', visitorId: null };

const number = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }).map((one) => String(one).padStart(19, '0'));
const frame = fc.constantFrom('', '.1', '.2', '.9');
/** Of either log. */
const position = fc.oneof(fc.tuple(number, frame), fc.tuple(number, fc.constant('-'), number, frame)).map((parts) => parts.join(''));

describe('a position that a visitor is told', () => {
  test('opens to the position for this visitor, is the same each time, and differs for every other position', () => {
    fc.assert(
      fc.property(position, position, (one, two) => {
        const told = positions.told(ada, one);
        expect(told).toMatch(/^[\w-]{22}([\w-]{21})?$/);
        expect([positions.told(ada, one), positions.read(ada, told)]).toEqual([told, one]);
        expect(positions.told(ada, two) === told).toBe(one === two);
      }),
    );
  });

  test('has no order: the next one is less as often as it is greater', () => {
    const told = Array.from({ length: 2_000 }, (_, i) => positions.told(ada, String(i).padStart(19, '0')));
    const greater = told.filter((one, i) => i > 0 && one > (told[i - 1] ?? '')).length;
    expect(Math.abs(greater - 1_000)).toBeLessThan(200);
  });

  test('of a moment differs each time, unless the answer is repeated', () => {
    const [one, two, ...same] = [
      positions.moment(ada, '0000000000000000042'),
      positions.moment(ada, '0000000000000000042'),
      positions.moment(ada, '0000000000000000042', 'command'),
      positions.moment(ada, '0000000000000000042', 'command'),
    ];
    expect(new Set([one, two, ...same, positions.told(ada, '0000000000000000042')]).size).toBe(4);
    for (const text of [one, two, ...same]) expect(positions.read(ada, text ?? '')).toBe('0000000000000000042');
    expect(positions.moment(ada, 'start')).toBe('start');
  });

  test('is none to another visitor, in another organization or installation, and with any character changed', () => {
    fc.assert(
      fc.property(position, (one) => {
        const told = positions.told(ada, one);
        for (const other of [{ ...ada, visitorId: 'eve' }, { ...ada, organizationId: 'other' }, key])
          expect(positions.read(other, told)).toBeUndefined();
        expect(new CallerPositions(randomBytes(32)).read(ada, told)).toBeUndefined();
        for (let i = 0; i < told.length; i++) {
          const changed = told.slice(0, i) + (told[i] === 'A' ? 'Q' : 'A') + told.slice(i + 1);
          expect(positions.read(ada, changed)).toBeUndefined();
        }
        for (const text of [`${told}=`, ` ${told}`, told.slice(1), `${told}A`, `${told}.1`, one, '', 'start'])
          expect(positions.read(ada, text)).toBeUndefined();
      }),
      { numRuns: 50 },
    );
  });

  test('has one spelling', () => {
    const told = positions.told(ada, '0000000000000000042');
    const spellings = Array.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_').map(
      (last) => told.slice(0, -1) + last,
    );
    expect(spellings.filter((one) => positions.read(ada, one) !== undefined)).toEqual([told]);
  });
});

test('the holder of a key is told positions as they are', () => {
  fc.assert(
    fc.property(position, (one) => {
      expect([positions.told(key, one), positions.moment(key, one), positions.read(key, one)]).toEqual([one, one, one]);
    }),
  );
  for (const text of ['', '7', 'start', "0000000000000000042'", '0000000000000000042.0']) expect(positions.read(key, text)).toBeUndefined();
});
