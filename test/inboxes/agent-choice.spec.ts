import fc from 'fast-check';
import { type FreeMember, mayHave, nextAgent } from '../../src/inboxes/agent-choice.js';

const anybody = () => true;
const position = (turn: number) => String(turn).padStart(9, '0');
const member = fc.record({
  id: fc.uuid(),
  name: fc.string(),
  open: fc.nat(5),
  lastTurn: fc.option(fc.nat(20).map(position)),
}) satisfies fc.Arbitrary<FreeMember>;
const members = fc.uniqueArray(member, { maxLength: 8, selector: ({ id }) => id });
const cap = fc.option(fc.integer({ min: 1, max: 6 }));
const mode = fc.constantFrom('round_robin' as const, 'least_busy' as const);
/** Some of the members, by their places. */
const refused = fc.uniqueArray(fc.nat(7), { maxLength: 4 });

test('somebody below the cap who may have it gets it whenever there is one, and no member comes before', () => {
  fc.assert(
    fc.property(members, cap, mode, refused, (all, limit, way, places) => {
      const not = new Set(places.map((place) => all[place]?.id));
      const may = all.filter(({ id, open }) => (limit === null || open < limit) && !not.has(id));
      const chosen = nextAgent({ mode: way, cap: limit }, all, (id) => !not.has(id));
      if (may.length === 0) return expect(chosen).toBeUndefined();
      expect(may).toContain(chosen);
      const rank = (one: FreeMember) => [
        ...(way === 'least_busy' ? [one.open] : []),
        one.lastTurn === null ? -1 : Number(one.lastTurn),
        all.indexOf(one),
      ];
      const compare = (a: readonly number[], b: readonly number[]) => {
        const at = a.findIndex((value, i) => value !== b[i]);
        return at < 0 ? 0 : (a[at] as number) - (b[at] as number);
      };
      expect(may.toSorted((a, b) => compare(rank(a), rank(b)))[0]).toBe(chosen);
    }),
  );
});

test('nobody gets a conversation of an inbox that is assigned by hand', () => {
  fc.assert(fc.property(members, cap, (all, limit) => expect(nextAgent({ mode: 'manual', cap: limit }, all, anybody)).toBeUndefined()));
});

type Happening = { readonly does: 'opens' } | { readonly does: 'ends' | 'leaves' | 'comes'; readonly who: number };
const happenings = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.constant<Happening>({ does: 'opens' }) },
    { weight: 1, arbitrary: fc.record({ does: fc.constantFrom('ends' as const, 'leaves' as const, 'comes' as const), who: fc.nat(5) }) },
  ),
  { maxLength: 200 },
);

test('whoever comes and goes, turns go round: nobody is given a second conversation before another who was free all along has one', () => {
  fc.assert(
    fc.property(happenings, fc.integer({ min: 1, max: 6 }), (what, count) => {
      const all = Array.from({ length: count }, (_, i) => ({ id: `a${i}`, name: '', open: 0, lastTurn: null as string | null }));
      const away = new Set<string>();
      /** For each pair, how many conversations the one was given since the other was last given one or came. */
      const since = new Map<string, number>();
      let turn = 0;
      for (const one of what) {
        if (one.does !== 'opens') {
          const who = all[one.who % count] as (typeof all)[number];
          if (one.does === 'ends') who.open = Math.max(0, who.open - 1);
          if (one.does === 'leaves') away.add(who.id);
          if (one.does === 'comes' && away.delete(who.id)) for (const other of all) since.set(`${other.id} ${who.id}`, 0);
          continue;
        }
        const online = all.filter(({ id }) => !away.has(id));
        const chosen = nextAgent({ mode: 'round_robin', cap: null }, online, anybody);
        if (chosen === undefined) {
          expect(online).toEqual([]);
          continue;
        }
        // Also for those who are away, who come back to find that it was given one.
        for (const other of all) since.set(`${other.id} ${chosen.id}`, 0);
        for (const other of online) {
          if (other === chosen) continue;
          const pair = `${chosen.id} ${other.id}`;
          since.set(pair, (since.get(pair) ?? 0) + 1);
          expect(since.get(pair)).toBeLessThanOrEqual(1);
        }
        chosen.open++;
        chosen.lastTurn = position(++turn);
      }
    }),
    // As two of them hand over: the one leaves after its conversation, and comes back after the other's.
    { examples: [[[{ does: 'opens' }, { does: 'leaves', who: 0 }, { does: 'opens' }, { does: 'comes', who: 0 }, { does: 'opens' }], 2]] },
  );
});

test('the least busy are levelled, and no cap is exceeded', () => {
  fc.assert(
    fc.property(happenings, fc.integer({ min: 1, max: 6 }), cap, (what, count, limit) => {
      const all = Array.from({ length: count }, (_, i) => ({ id: `a${i}`, name: '', open: 0, lastTurn: null as string | null }));
      let turn = 0;
      for (const one of what) {
        if (one.does !== 'opens') {
          if (one.does === 'ends')
            for (const who of all.slice(one.who % count, (one.who % count) + 1)) who.open = Math.max(0, who.open - 1);
          continue;
        }
        const least = Math.min(...all.map(({ open }) => open));
        const chosen = nextAgent({ mode: 'least_busy', cap: limit }, all, anybody);
        if (chosen === undefined) expect(limit !== null && least >= limit).toBe(true);
        else {
          expect(chosen.open).toBe(least);
          chosen.open++;
          chosen.lastTurn = position(++turn);
          expect(chosen.open).toBeLessThanOrEqual(limit ?? Infinity);
        }
      }
    }),
  );
});

test('in the queue of a team only its members may have it, and never the agent from whom it was taken', () => {
  expect(['a', 'b', 'c'].filter(mayHave(null, null))).toEqual(['a', 'b', 'c']);
  expect(['a', 'b', 'c'].filter(mayHave('b', null))).toEqual(['a', 'c']);
  expect(['a', 'b', 'c'].filter(mayHave('b', ['b', 'c', 'd']))).toEqual(['c']);
  expect(['a', 'b', 'c'].filter(mayHave(null, []))).toEqual([]);
});
