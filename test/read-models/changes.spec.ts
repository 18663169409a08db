import { changesBetween } from '../../src/read-models/changes.js';

test.each<[string, object, object, [string, unknown, unknown][]]>([
  ['nothing', { a: 1, b: [{ c: null }] }, { b: [{ c: null }], a: 1 }, []],
  ['null and absent are the same', { a: null }, { b: null }, []],
  ['a list of the same length', { tags: ['a', 'b'] }, { tags: ['a', 'c'] }, [['tags', ['a', 'b'], ['a', 'c']]]],
  ['the order of a list', { tags: ['a', 'b'] }, { tags: ['b', 'a'] }, [['tags', ['a', 'b'], ['b', 'a']]]],
  ['a field within a list', { rules: [{ a: 1 }] }, { rules: [{ a: 2 }] }, [['rules', [{ a: 1 }], [{ a: 2 }]]]],
  [
    'what is new and what is gone',
    { a: 1 },
    { b: { c: 2 } },
    [
      ['a', 1, null],
      ['b', null, { c: 2 }],
    ],
  ],
  ['fields within, each by itself', { a: { b: { c: 1, d: 1 } } }, { a: { b: { c: 2, d: 1 } } }, [['a.b.c', 1, 2]]],
  [
    'false, zero and nothing are different',
    { a: false, b: 0 },
    { a: null, b: '' },
    [
      ['a', false, null],
      ['b', 0, ''],
    ],
  ],
  [
    'names that a path must quote',
    { x: { 'a.b': 1, 'a"': 1, '': 1 } },
    { x: {} },
    [
      ['x["a.b"]', 1, null],
      [String.raw`x["a\""]`, 1, null],
      ['x[""]', 1, null],
    ],
  ],
  [
    'names of every object',
    {},
    { constructor: 1, toString: 2 },
    [
      ['constructor', null, 1],
      ['toString', null, 2],
    ],
  ],
])('%s', (_, before, after, changes) => {
  expect(changesBetween(before, after).map(({ field, before: was, after: is }) => [field, was, is])).toEqual(changes);
});
