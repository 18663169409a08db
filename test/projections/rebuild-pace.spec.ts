import { RebuildPace } from '../../projections/runtime/rebuild-pace.js';

let now = 0;
beforeEach(() => (now = 1_000));

/** The rests of a rebuild whose batches take 100 ms each, beside so many live events a second. */
function restsBeside(perSecond: number, batches = 7): number[] {
  const pace = new RebuildPace(() => now);
  const rests: number[] = [];
  for (let i = 0; i < batches; i += 1) {
    now += 100;
    const rest = pace.rest((now / 1_000) * perSecond);
    rests.push(Math.round(rest));
    now += rest;
    pace.rested();
  }
  return rests;
}

it('does not rest beside an idle log', () => {
  expect(restsBeside(0)).toEqual([0, 0, 0, 0, 0, 0, 0]);
});

it('rests in proportion to the load, not counting its own rests as work', () => {
  // The load is not known before it was looked at for a quarter of a second.
  expect(restsBeside(200)).toEqual([0, 0, 0, 100, 100, 100, 100]);
  expect(restsBeside(20)).toEqual([0, 0, 0, 10, 10, 10, 10]);
});

it('keeps a sixth of its time under any load', () => {
  expect(restsBeside(50_000)).toEqual([0, 0, 0, 500, 500, 500, 500]);
});

it('takes the number of another generation for no load', () => {
  const pace = new RebuildPace(() => now);
  pace.rest(10_000);
  now += 300;
  expect(pace.rest(20_000)).toBeGreaterThan(0);
  pace.rested();
  now += 100;
  expect(pace.rest(3)).toBe(0);
});

it('works in small steps under load, whether or not a step has seen an event', () => {
  const pace = new RebuildPace(() => now);
  // The load is not known yet.
  expect(pace.step(5_000)).toBe(250);
  pace.rest(0);
  now += 300;
  pace.rest(300);
  expect([pace.step(5_000), pace.step(7)]).toEqual([250, 7]);
  now += 30;
  pace.rest(300);
  expect(pace.step(5_000)).toBe(250);
  now += 300;
  pace.rest(300);
  expect(pace.step(5_000)).toBe(5_000);
});
