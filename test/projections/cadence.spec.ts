import { Cadence } from '../../projections/runtime/cadence.js';

describe('beside an API', () => {
  it.each([
    [0, 3],
    [16, 3],
    [24, 51.5],
    [32, 100],
    [500, 100],
  ])('with %d commands in flight it pauses %d ms', (inFlight, ms) => {
    expect(
      new Cadence(
        () => inFlight,
        () => 0,
      ).pause(20),
    ).toBeCloseTo(ms);
  });

  it('a group that may be late pauses as long as it says, and only under load', () => {
    const pauses = [0, 24, 32].map((inFlight) =>
      new Cadence(
        () => inFlight,
        () => 0,
        400,
      ).pause(20),
    );
    expect(pauses).toEqual([3, 201.5, 400]);
  });
});

describe('a long pause', () => {
  /** How long it rests when so many commands are in flight at each time it looks. */
  async function rested(...inFlight: readonly number[]): Promise<number> {
    let time = 0;
    let looked = 0;
    const cadence = new Cadence(
      () => inFlight[Math.min(looked++, inFlight.length - 1)] ?? 0,
      () => time,
    );
    await cadence.rest(20, new AbortController().signal, (ms) => Promise.resolve(void (time += ms)));
    return time;
  }

  it.each([
    ['lasts while the load does', [32], 100],
    ['ends soon after the load has gone', [32, 32, 2], 20],
    ['is shortened by what has gone, and not made longer by what comes', [32, 24, 500], 51.5],
    ['of an idle API is short', [0], 3],
  ])('%s', async (_, inFlight, ms) => {
    expect(await rested(...inFlight)).toBeCloseTo(ms);
  });
});

it('rests no more once it is told to end', async () => {
  const ending = new AbortController();
  let waits = 0;
  const cadence = new Cadence(
    () => 32,
    () => 0,
  );
  await cadence.rest(20, ending.signal, () => {
    if (++waits === 2) ending.abort();
    return Promise.resolve();
  });
  expect(waits).toBe(2);
});

describe('in a worker of its own', () => {
  /** Feeds so many events a second, as batches that come when the pause is over. */
  function after(seconds: number, perSecond: number, cadence = start()): number {
    let ms = 0;
    for (const end = cadence.time + seconds * 1_000; cadence.time < end;) {
      const step = ms + 2;
      cadence.time += step;
      ms = cadence.of.pause((perSecond * step) / 1_000);
    }
    return ms;
  }
  function start(): { time: number; of: Cadence } {
    const clock = { time: 0 };
    return Object.assign(clock, { of: new Cadence(undefined, () => clock.time) });
  }

  it.each([
    [50, 3],
    [1_000, 10],
    [2_000, 20],
    [10_000, 25],
  ])('at %d events a second it settles at %d ms', (perSecond, ms) => {
    expect(after(10, perSecond)).toBeGreaterThanOrEqual(ms * 0.95);
    expect(after(10, perSecond)).toBeLessThanOrEqual(ms * 1.05);
  });

  it('is quick again soon after the load has gone', () => {
    const cadence = start();
    expect(after(10, 10_000, cadence)).toBe(25);
    cadence.time += 5_000;
    expect(cadence.of.pause(1)).toBe(3);
  });
});
