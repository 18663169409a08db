import { readDialogue } from '../../src/cli/dialogue.js';

const NOW = Date.UTC(2026, 0, 1);
const read = (line: object) => readDialogue(JSON.stringify(line), NOW);

test('a field of a line that is null counts as absent', () => {
  const turn = { from: 'visitor', text: 'Hi' };
  const visitor = { userId: 'u-1', name: 'Ada', attributes: { plan: null, seats: 3 } };
  const nulls = { topics: null, tags: null, status: null, subject: null, priority: null, customAttributes: null, createdAt: null };
  const noVisitor = { id: null, email: null, phone: null, avatarUrl: null, plan: null, companyId: null };
  const given = read({ id: '1', ...nulls, turns: [{ ...turn, at: null, agentId: null }], visitor: { ...visitor, ...noVisitor } });
  // To the byte, since what was imported is known again by its hash.
  expect(JSON.stringify(given)).toBe(JSON.stringify(read({ id: '1', turns: [turn], visitor })));
  expect(read({ id: '1', turns: [turn], visitor: null })).toEqual({ id: '1', turns: [turn] });
});

test('a field that must be there may not be null', () => {
  expect(() => read({ id: null, turns: [null] })).toThrow('id: is missing; turns[0]: must be an object');
  expect(() => read({ id: '1', turns: null })).toThrow('turns: is missing');
  expect(() => read({ id: '1', turns: [{ from: 'visitor', text: null }] })).toThrow('turns[0].text: is missing');
  expect(() => read({ id: '1', turns: 'x', visitor: [] })).toThrow('turns: must be a list; visitor: must be an object');
});

test('the limits are those of the API, and what is wrong is said in its words', () => {
  const url = `HTTPS://a.example/${'x'.repeat(8_000)}`;
  expect(read({ id: '1', turns: [{ from: 'visitor', text: 'Hi' }], visitor: { avatarUrl: url } }).visitor).toEqual({ avatarUrl: url });
  expect(() =>
    read({ id: '1', turns: [{ from: 'visitor', text: 'Hi' }], visitor: { avatarUrl: `${url}${'x'.repeat(200)}`, email: 'x' }, mood: 1 }),
  ).toThrow(
    'visitor.email: must be an e-mail address without characters that cannot be seen; visitor.avatarUrl: must have at most 8192 characters; mood: is not known here',
  );
});
