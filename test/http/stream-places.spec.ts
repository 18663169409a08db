import { StreamPlaces } from '../../src/http/stream-places.js';
import { eventually } from '../support/eventually.js';

const each = { most: 1, full: 'this one has enough' };
const all = { most: 2, full: 'there is no place' };

async function* numbers(): AsyncGenerator<number> {
  for (let i = 0; ; i++) yield await Promise.resolve(i);
}
const nothing = () => undefined;

test('each has its own places, within those of all', async () => {
  const places = new StreamPlaces({ each, all });
  const first = places.hold('a', nothing, numbers());
  await first.next();
  await expect(places.hold('a', nothing, numbers()).next()).rejects.toMatchObject({ code: 'rate_limited', message: each.full });
  const second = places.hold('b', nothing, numbers());
  await second.next();
  await expect(places.hold('c', nothing, numbers()).next()).rejects.toMatchObject({ code: 'rate_limited', message: all.full });
  expect(places.running).toBe(2);
  await first.return();
  const third = places.hold('c', nothing, numbers());
  expect(await third.next()).toEqual({ done: false, value: 0 });
  await second.return();
  await third.return();
  expect(places.running).toBe(0);
});

test('an answer that takes too long as a whole is cut, also while its client goes on reading', async () => {
  const places = new StreamPlaces({ each, longestMs: 50 });
  let cuts = 0;
  const cut = () => void cuts++;
  const short = places.hold('a', cut, numbers());
  await short.next();
  await short.return();
  const long = places.hold('a', cut, numbers());
  await eventually(async () => {
    await long.next();
    return cuts > 0;
  });
  await long.return();
  expect(cuts).toBe(1);
});
