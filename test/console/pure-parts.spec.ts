import { EMPTY, takeConversation, takeSummary } from '../../console/store/conversation-store.js';
import { heldOrder, orderOf } from '../../console/store/list-order.js';
import { VIEWS, viewOf } from '../../console/inbox/views.js';
import { safeAddress } from '../../console/inbox/message-text.js';
import { actionOf, KEYS, keysSaid } from '../../console/keys.js';
import { scrollFor, windowOfRows } from '../../console/kit/window-of-rows.js';
import { addressOf, placeOf } from '../../console/routes.js';
import { ModelDesk } from './model-desk.js';

const pressed = (key: string, more = {}) => ({ key, ctrlKey: false, metaKey: false, altKey: false, isComposing: false, ...more });

describe('the keys', () => {
  test('are each taken once, and each action has one', () => {
    const all = KEYS.flatMap(({ keys, withControl }) => keys.map((key) => `${withControl === true} ${key}`));
    expect(new Set(all).size).toBe(all.length);
    expect(new Set(KEYS.map(({ action }) => action)).size).toBe(KEYS.length);
    expect(KEYS.map(keysSaid)).toEqual(expect.arrayContaining(['j', 'Esc', 'Ctrl+Enter', '1–5']));
  });

  test('are the browser’s with Ctrl, Cmd or Alt, and the field’s while somebody types', () => {
    expect(actionOf(pressed('r'), false)).toBe('reply');
    for (const more of [{ ctrlKey: true }, { metaKey: true }, { altKey: true }])
      expect(actionOf(pressed('r', more), false)).toBeUndefined();
    expect(actionOf(pressed('r'), true)).toBeUndefined();
    expect(actionOf(pressed('Escape'), true)).toBe('back');
    for (const more of [{ ctrlKey: true }, { metaKey: true }]) expect(actionOf(pressed('Enter', more), true)).toBe('send');
    expect(actionOf(pressed('Enter', { ctrlKey: true, isComposing: true }), true)).toBeUndefined();
  });
});

test('an address and what it shows are the same thing', () => {
  for (const view of VIEWS)
    for (const conversationId of [null, 'x', 'a/b?c#d %']) {
      const place = { view: view.id, conversationId };
      expect(placeOf(new URL(addressOf(place), 'http://host'))).toEqual(place);
    }
  expect(placeOf(new URL('http://host/console/support/conversations/%E0%A4%A?view=none'))).toEqual({
    view: 'all',
    conversationId: '%E0%A4%A',
  });
});

test('of 10,000 rows at most 60 are made, and every row in sight is', () => {
  for (const [scrolled, height] of [
    [0, 600],
    [5_000, 900],
    [759_400, 600],
    [1e9, 600],
  ] as const) {
    const { first, end } = windowOfRows(10_000, 76, scrolled, height);
    expect(end - first).toBeLessThanOrEqual(60);
    if (scrolled < 760_000) {
      expect(first * 76).toBeLessThanOrEqual(scrolled);
      expect(end * 76).toBeGreaterThanOrEqual(Math.min(760_000, scrolled + height));
    }
  }
  expect(windowOfRows(0, 76, 0, 600)).toEqual({ first: 0, end: 0 });
  expect([scrollFor(0, 76, 100, 600), scrollFor(3, 76, 100, 600), scrollFor(20, 76, 100, 600)]).toEqual([0, undefined, 996]);
});

describe('the list', () => {
  const desk = new ModelDesk();
  for (const id of ['a', 'b', 'c']) desk.open(id);
  const rows = ['a', 'b', 'c'].map((id) => desk.summary(id));

  test('stands newest first, as far as it has been read', () => {
    expect(orderOf(viewOf('all'), rows, null, 'the end')).toEqual(['c', 'b', 'a']);
    expect(orderOf(viewOf('all'), rows, null, { last: desk.summary('b') })).toEqual(['c', 'b']);
    expect(orderOf(viewOf('all'), rows, null, 'nothing')).toEqual([]);
    expect(orderOf(viewOf('mine'), rows, 'agent', 'the end')).toEqual([]);
    expect(orderOf(viewOf('unassigned'), rows, null, 'the end')).toHaveLength(3);
  });

  test('moves nothing while somebody points at it, and says how much would move', () => {
    expect(heldOrder(['a', 'b', 'c'], ['c', 'a', 'b'], true)).toEqual({ ids: ['a', 'b', 'c'], moved: 3 });
    expect(heldOrder(['a', 'b', 'c'], ['a', 'b'], true)).toEqual({ ids: ['a', 'b', 'c'], moved: 1 });
    expect(heldOrder(['a', 'b', 'c'], ['c', 'a', 'b'], false)).toEqual({ ids: ['c', 'a', 'b'], moved: 0 });
  });
});

test('an answer that is older than the first thing that was told asks for a newer one', () => {
  const desk = new ModelDesk();
  desk.open('a');
  const early = desk.conversation('a');
  desk.say('a', 'visitor', 'Hi');
  const store = takeConversation(takeSummary(EMPTY, desk.summary('a')), early, 'me');
  expect([...store.wanted]).toEqual([['a', 1]]);
  expect(takeConversation(store, desk.conversation('a'), 'me').wanted.size).toBe(0);
});

test('only an address of the web is a link', () => {
  expect(safeAddress('https://example.com/x')).toBe('https://example.com/x');
  for (const bad of [
    'javascript:alert(1)',
    'JAVASCRIPT:alert(1)',
    'data:text/html,x',
    ' javascript:alert(1)',
    'no address',
    'file:///etc/passwd',
  ])
    expect(safeAddress(bad)).toBeUndefined();
});
