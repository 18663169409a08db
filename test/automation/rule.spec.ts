import fc from 'fast-check';
import { askInOrder } from '../../src/automation/ask.js';
import { evaluate, MAX_SAW, type Seen, type Situation } from '../../src/automation/evaluate.js';
import { patternFault } from '../../src/automation/pattern.js';
import {
  conditionsFaults,
  conditionsOf,
  impossibleFaults,
  partsOf,
  referencesOf,
  soundPartsOf,
  triggerFaults,
} from '../../src/automation/rule.check.js';
import {
  archiveRule,
  changeRule,
  type Condition,
  type Conditions,
  createRule,
  type Rule,
  ruleAggregate,
  type RuleEvent,
  type RuleFields,
  unarchiveRule,
} from '../../src/automation/rule.js';
import { ATTRIBUTE_FIELDS, EVENT_TRIGGERS, FIELDS, OPERATORS, OPERATORS_OF, TIME_TRIGGERS } from '../../src/automation/rule-fields.js';
import { PUBLIC_EVENTS } from '../../src/conversations/public-event.js';
import { nextTurn } from '../../src/pause.js';
import { fieldPath } from '../../src/texts/field-path.js';
import { given } from '../support/given.js';
import { seededRandom } from '../support/seeded-random.js';

/** What a reply may have to wait for rules in the same process (ms of the processor). */
const MOST_WORK_MS = 50;

/**
 * The longest work between two rests, and how many rests there were. It is measured on the processor and not by the clock, since that would
 * count what other processes do, and in the quietest of three rounds, since it counts the engine's own threads.
 */
async function longestWork(ask: (rest: () => Promise<void>) => Promise<void>): Promise<{ readonly ms: number; readonly rests: number }> {
  const rounds: { ms: number; rests: number }[] = [];
  for (let round = 0; round < 3; round++) {
    const worst = { ms: 0, rests: 0 };
    let began = process.cpuUsage();
    const note = () => {
      const { user, system } = process.cpuUsage(began);
      worst.ms = Math.max(worst.ms, (user + system) / 1_000);
    };
    await ask(async () => {
      note();
      worst.rests++;
      await nextTurn();
      began = process.cpuUsage();
    });
    note();
    rounds.push(worst);
  }
  return rounds.reduce((quietest, one) => (one.ms < quietest.ms ? one : quietest));
}

const fields: RuleFields = {
  name: 'Refunds',
  trigger: 'message.received',
  conditions: [{ field: 'message.content', operator: 'contains', value: 'refund' }],
  actions: [{ type: 'addTag', tag: 'refund' }],
  enabled: true,
  order: 0,
  stopOnMatch: false,
};
const created: RuleEvent = { type: 'RuleCreated', data: fields };

describe('a rule', () => {
  const { initial } = ruleAggregate;
  it('is made once', () => {
    expect(given(ruleAggregate).when(createRule(fields)).thenEvents(created)).toMatchObject({ ...fields, exists: true, archived: false });
  });

  it('changes the fields that differ, and none that do not', () => {
    given(ruleAggregate, created)
      .when(changeRule({ name: null, order: 0, trigger: { type: 'in_status_for', seconds: 60 } }))
      .thenEvents({ type: 'RuleChanged', data: { name: null, trigger: { type: 'in_status_for', seconds: 60 } } });
    given(ruleAggregate, created)
      .when(changeRule({ conditions: fields.conditions, enabled: true }))
      .thenNothing();
    given(ruleAggregate)
      .when(changeRule({ name: 'x' }))
      .thenRefused('not_found');
  });

  it('goes to the archive and comes back', () => {
    const archived: RuleEvent = { type: 'RuleArchived', data: {} };
    given(ruleAggregate, created).when(archiveRule()).thenEvents(archived);
    given(ruleAggregate, created, archived)
      .when(changeRule({ name: 'x' }))
      .thenRefused('resource_archived');
    given(ruleAggregate, created, archived).when(unarchiveRule()).thenEvents({ type: 'RuleUnarchived', data: {} });
    given(ruleAggregate, created).when(unarchiveRule()).thenNothing();
    for (const decision of [archiveRule(), unarchiveRule()]) given(ruleAggregate).when(decision).thenRefused('not_found');
    expect(initial.enabled).toBe(false);
  });

  it('is triggered by every public event', () => expect(EVENT_TRIGGERS).toEqual(PUBLIC_EVENTS));
});

const ruleWith = (conditions: Conditions, more: Partial<RuleFields> = {}): Rule => ({
  ...ruleAggregate.initial,
  ...fields,
  conditions,
  exists: true,
  ...more,
});
const seeing =
  (values: Readonly<Record<string, Seen>>): Situation =>
  (name) =>
    values['fixed' in name ? name.fixed : `${name.prefix}${name.attribute}`] ?? null;
const holds = (leaf: Condition, saw: Seen) => evaluate(ruleWith([leaf]), seeing({ [leaf.field]: saw })).matched;

describe('the evaluator', () => {
  const text = 'message.content';
  const cases: readonly [Condition['field'], Condition['operator'], Condition['value'], readonly Seen[], readonly Seen[]][] = [
    [text, 'equals', 'Ärger', ['ärger', 'A\u0308RGER'], ['arger', 'Ärger!', null]],
    [text, 'not_equals', 'a', ['b', null], ['A']],
    [text, 'contains', 'refund', ['A Refund?'], ['refun d', null]],
    [text, 'not_contains', 'refund', ['x', null], ['REFUNDS']],
    [text, 'starts_with', 're', ['Refund'], ['a re', null]],
    [text, 'ends_with', 'nd', ['RefuND'], ['nd ', null]],
    [text, 'in', ['a', 'b'], ['A'], ['c', null]],
    [text, 'not_in', ['a', 'b'], ['c', null], ['B']],
    [text, 'matches', '^a+$', ['aa'], ['A', 'ab', null]],
    [text, 'matches', '(?i)order #\\d+', ['My ORDER #12'], ['order #']],
    [text, 'is_set', undefined, ['x', ' '], ['', null]],
    [text, 'is_not_set', undefined, ['', null], ['x']],
    ['visitor.userId', 'equals', 'User-1', ['User-1'], ['user-1', null]],
    ['visitor.userId', 'in', ['User-1'], ['User-1'], ['user-1']],
    ['conversation.status', 'equals', 'open', ['open'], ['closed']],
    ['conversation.tags', 'contains', 'VIP', [['vip'], ['a', 'Vip']], [['vips'], [], null]],
    ['conversation.tags', 'not_contains', 'vip', [[], ['a']], [['VIP']]],
    ['conversation.tags', 'in', ['a', 'b'], [['x', 'B']], [['x'], []]],
    ['conversation.tags', 'not_in', ['a', 'b'], [['x'], []], [['a', 'x']]],
    ['conversation.tags', 'is_set', undefined, [['a']], [[]]],
    ['conversation.messageCount', 'equals', 3, [3], [4]],
    ['conversation.messageCount', 'greater_than', 3, [4], [3]],
    ['conversation.messageCount', 'less_than', 3, [2], [3]],
    ['conversation.messageCount', 'in', [1, 2], [1], [3]],
    ['inbox.withinWorkingHours', 'equals', false, [false], [true, null]],
    ['visitor.attributes.x', 'equals', true, [true], ['true', 1, false, null]],
    ['visitor.attributes.x', 'equals', 5, [5], ['5', 6]],
    ['visitor.attributes.x', 'equals', 'Gold', ['gold'], [true]],
    ['visitor.attributes.x', 'greater_than', 5, [5.5], [5, '6', null]],
    ['visitor.attributes.x', 'contains', 'ol', ['GOLD'], [5, null]],
    ['visitor.attributes.x', 'is_set', undefined, [0, false, 'x'], ['', null]],
  ];
  it.each(cases)('%s %s %j', (field, operator, value, yes, no) => {
    const leaf: Condition = { field, operator, ...(value === undefined ? {} : { value }) };
    expect(conditionsFaults([leaf])).toBeUndefined();
    for (const saw of yes) expect([saw, holds(leaf, saw)]).toEqual([saw, true]);
    for (const saw of no) expect([saw, holds(leaf, saw)]).toEqual([saw, false]);
  });

  it('has a case for each operator of each type of field', () => {
    const tried = new Set(cases.map(([, operator]) => operator));
    expect(OPERATORS.filter((operator) => !tried.has(operator))).toEqual([]);
  });

  it('repeats the rule’s tree in its trace, every leaf with what it saw', () => {
    const status = { field: 'conversation.status', operator: 'equals', value: 'open' } as const;
    const urgent = { field: 'conversation.priority', operator: 'equals', value: 'urgent' } as const;
    const { matched, conditions } = evaluate(
      ruleWith({ all: [{ any: [urgent, status] }, { not: urgent }, { all: [] }] }),
      seeing({ 'conversation.status': 'open', 'conversation.priority': 'low' }),
    );
    expect(matched).toBe(true);
    expect(conditions).toEqual({
      all: [
        {
          any: [
            { ...urgent, saw: 'low', holds: false },
            { ...status, saw: 'open', holds: true },
          ],
        },
        { not: { ...urgent, saw: 'low', holds: false } },
        { all: [] },
      ],
    });
    expect(evaluate(ruleWith([]), seeing({})).matched).toBe(true);
    expect(evaluate(ruleWith({ any: [] }), seeing({})).matched).toBe(false);
    const long = evaluate(
      ruleWith([{ field: 'message.content', operator: 'is_set' }]),
      seeing({ 'message.content': `${'x'.repeat(MAX_SAW - 1)}😀y` }),
    );
    expect(long.conditions).toMatchObject([{ saw: `${'x'.repeat(MAX_SAW - 1)}…` }]);
  });

  it('agrees with the plain meaning of all, any and not on random trees', () => {
    type Tree = { all: Tree[] } | { any: Tree[] } | { not: Tree } | Condition;
    const { tree } = fc.letrec<{ tree: Tree; leaf: Condition }>((tie) => ({
      leaf: fc
        .constantFrom('a', 'b', 'c')
        .map((name): Condition => ({ field: `visitor.attributes.${name}`, operator: 'equals', value: true })),
      tree: fc.oneof(
        { maxDepth: 4, withCrossShrink: true },
        tie('leaf'),
        fc.array(tie('tree'), { maxLength: 3 }).map((all) => ({ all })),
        fc.array(tie('tree'), { maxLength: 3 }).map((any) => ({ any })),
        tie('tree').map((not) => ({ not })),
      ),
    }));
    const means = (node: Tree, values: Readonly<Record<string, boolean>>): boolean => {
      if ('all' in node) return node.all.reduce((so, one) => so && means(one, values), true);
      if ('any' in node) return node.any.reduce((so, one) => so || means(one, values), false);
      if ('not' in node) return !means(node.not, values);
      return values[node.field.slice(-1)] === true;
    };
    fc.assert(
      fc.property(tree, fc.record({ a: fc.boolean(), b: fc.boolean(), c: fc.boolean() }), (conditions, values) => {
        const seen = seeing({ 'visitor.attributes.a': values.a, 'visitor.attributes.b': values.b, 'visitor.attributes.c': values.c });
        expect(evaluate(ruleWith(conditions), seen).matched).toBe(means(conditions, values));
      }),
      { numRuns: 2_000 },
    );
  });

  it('folds a long message once, however many conditions of however many rules look at it', async () => {
    const message = 'Ça va. '.repeat(7_000);
    const situation = seeing({ 'message.content': message });
    const conditions = Array.from({ length: 100 }, (_, n): Condition => ({
      field: 'message.content',
      operator: 'contains',
      value: `no ${n}`,
    }));
    const rules = Array.from({ length: 20 }, (_, n) => ({ id: `r${n}`, rule: ruleWith({ any: conditions }), revision: 0 }));
    const { prototype } = String;
    const normalize = Object.getOwnPropertyDescriptor(prototype, 'normalize') as { readonly value: typeof prototype.normalize };
    let folded = 0;
    const counting = function (this: string, form?: string) {
      if (String(this) === message) folded++;
      return normalize.value.call(this, form);
    };
    Object.defineProperty(prototype, 'normalize', { ...normalize, value: counting });
    try {
      const answers = await askInOrder(rules, situation, undefined, nextTurn);
      expect(answers.map(({ outcome }) => outcome)).toEqual(rules.map(() => 'not_matched'));
      expect(folded).toBe(1);
    } finally {
      Object.defineProperty(prototype, 'normalize', normalize);
    }
  });

  it('holds nobody up with patterns that would blow up elsewhere, in however many rules', async () => {
    const situation = seeing({ 'message.content': `${'a'.repeat(10_000)}!` });
    const conditions = ['(a+)+$', '(a|aa)+$', '(?:a?){30}a{30}$', '(x+x+)+y', '^(([a-z])+.)+[A-Z]([a-z])+$'].map((value): Condition => ({
      field: 'message.content',
      operator: 'matches',
      value,
    }));
    const rules = Array.from({ length: 200 }, (_, n) => ({ id: `r${n}`, rule: ruleWith([conditions[n % 5] as Condition]), revision: 0 }));
    // It looks at the first 2,000 characters, which are all the same.
    expect((await askInOrder(rules.slice(0, 1), situation, undefined, nextTurn))[0]?.outcome).toBe('matched');
    const { ms, rests } = await longestWork(async (rest) => void (await askInOrder(rules, situation, undefined, rest)));
    // After each pattern, and after each rule.
    expect(rests).toBe(2 * rules.length);
    // A backtracking matcher would take longer than the universe has existed.
    expect(ms).toBeLessThan(MOST_WORK_MS);
  });
});

describe('patterns on texts that were never seen before', () => {
  // Each keeps as many threads alive as it may have steps, or looks for characters among thousands.
  const NASTY = [
    'a.{40}[cd]$',
    '[ab]*a[ab]{60}[cd]',
    '(a|b)*a(a|b){28}[cd]',
    '(a.{0,20}){2}[cd]',
    '(a.{50}|b.{25}[cd])[cd]',
    '(\\w|.)*a(\\pL|b){28}[cd]',
    '(?i)(\\PN|\\pL)*a(\\pL|\\PN){25}[cd]',
    '(\\p{Cyrillic}|(?i:a)\\p{Ll}\\w(((?i:a))?|(?:\\pL){60,}))[cd]',
    '([[:alpha:]]|\\p{Ll}|\\b\\S){12}[0-9]\\z',
    '(?:a?){12}(a|b){18}[cd]',
  ];
  const random = seededRandom(7);
  const fresh = (letters: string) => Array.from({ length: 10_000 }, () => letters[random.int(letters.length)]).join('');

  it.each(['ab', 'abжé1 '])('hold nobody up: %s', async (letters) => {
    for (const pattern of NASTY) expect([pattern, patternFault(pattern)]).toEqual([pattern, undefined]);
    const conditions = NASTY.map((value): Condition => ({ field: 'message.content', operator: 'matches', value }));
    const { ms, rests } = await longestWork(async (rest) => {
      for (let text = 0; text < 5; text++) {
        const situation = seeing({ 'message.content': fresh(letters) });
        await rest();
        const [answer] = await askInOrder([{ id: 'r', rule: ruleWith(conditions), revision: 0 }], situation, undefined, rest);
        expect(answer?.outcome).toBe('not_matched');
      }
    });
    expect(rests).toBe(5 * (1 + NASTY.length + 1));
    expect(ms).toBeLessThan(MOST_WORK_MS);
  });

  it('takes what was stored under a greater bound', async () => {
    const rule = ruleWith([{ field: 'message.content', operator: 'matches', value: '(a|b)*a(a|b){60}[cd]' }]);
    expect(
      (await askInOrder([{ id: 'r', rule, revision: 0 }], seeing({ 'message.content': fresh('ab') }), undefined, nextTurn))[0]?.outcome,
    ).toBe('not_matched');
    const found = seeing({ 'message.content': `${'ab'.repeat(50)}ad` });
    expect((await askInOrder([{ id: 'r', rule, revision: 0 }], found, undefined, nextTurn))[0]?.outcome).toBe('matched');
  });
});

describe('several rules about one event', () => {
  const at = (id: string, more: Partial<RuleFields> = {}, conditions: Conditions = []) => ({
    id,
    rule: ruleWith(conditions, more),
    revision: 2,
  });

  it('are asked in order until one stops', async () => {
    const answers = await askInOrder([at('a', {}, { any: [] }), at('b', { stopOnMatch: true }), at('c')], seeing({}), undefined, nextTurn);
    expect(answers).toMatchObject([
      { ruleId: 'a', ruleRevision: 2, outcome: 'not_matched', actions: [] },
      { ruleId: 'b', outcome: 'matched', actions: ['addTag'] },
      { ruleId: 'c', outcome: 'not_asked', reason: 'stopped_by', byRules: ['b'], conditions: null, actions: [] },
    ]);
  });

  it('are not asked about an event to which too many reactions led', async () => {
    expect(await askInOrder([at('a')], seeing({}), ['b', 'a'], nextTurn)).toMatchObject([
      { outcome: 'not_asked', reason: 'depth', byRules: ['b', 'a'] },
    ]);
  });
});

describe('what is refused', () => {
  const leaf = { field: 'message.content', operator: 'contains', value: 'x' };
  const paths = (faults: ReturnType<typeof conditionsFaults>) =>
    typeof faults === 'string' ? [''] : (faults ?? []).map(({ path }) => fieldPath(path, 'conditions'));
  it.each<[unknown, string[]]>([
    ['x', ['']],
    [5, ['']],
    [[5], ['conditions[0]']],
    [[leaf, { ...leaf, field: 'message.colour' }], ['conditions[1].field']],
    [[{ ...leaf, field: 'visitor.attributes.' }], ['conditions[0].field']],
    [[{ ...leaf, operator: 'like' }], ['conditions[0].operator']],
    [[{ ...leaf, more: 1 }], ['conditions[0].more']],
    [[{ operator: 'equals', value: 1 }], ['conditions[0].field']],
    [[{ ...leaf, operator: 'greater_than', value: 1 }], ['conditions[0].operator']],
    [[{ field: 'conversation.tags', operator: 'equals', value: 'a' }], ['conditions[0].operator']],
    [[{ ...leaf, value: 5 }], ['conditions[0].value']],
    [[{ ...leaf, value: '' }], ['conditions[0].value']],
    [[{ field: 'message.content', operator: 'contains' }], ['conditions[0].value']],
    [[{ ...leaf, operator: 'is_set' }], ['conditions[0].value']],
    [[{ ...leaf, operator: 'in' }], ['conditions[0].value']],
    [[{ ...leaf, operator: 'in', value: ['a', 5] }], ['conditions[0].value[1]']],
    [[{ ...leaf, operator: 'in', value: [] }], ['conditions[0].value']],
    [[{ field: 'conversation.status', operator: 'equals', value: 'asleep' }], ['conditions[0].value']],
    [[{ field: 'conversation.messageCount', operator: 'equals', value: '3' }], ['conditions[0].value']],
    [[{ field: 'inbox.withinWorkingHours', operator: 'equals', value: 'true' }], ['conditions[0].value']],
    [[{ field: 'conversation.customAttributes.x', operator: 'greater_than', value: 'a' }], ['conditions[0].value']],
    [[{ ...leaf, operator: 'matches', value: '(' }], ['conditions[0].value']],
    [[{ ...leaf, operator: 'matches', value: '(?<=a)b' }], ['conditions[0].value']],
    [[{ ...leaf, operator: 'matches', value: '(a)\\1' }], ['conditions[0].value']],
    [[{ ...leaf, operator: 'matches', value: 'x'.repeat(201) }], ['conditions[0].value']],
    [[{ ...leaf, operator: 'matches', value: 'a{500}' }], ['conditions[0].value']],
    [[{ ...leaf, operator: 'matches', value: '(a|b)*a(a|b){60}' }], ['conditions[0].value']],
    [{ all: [leaf, { any: [{ not: { ...leaf, operator: 'x' } }] }] }, ['conditions.all[1].any[0].not.operator']],
    [{ all: leaf }, ['conditions.all']],
    [{ all: [], any: [] }, ['conditions.any']],
    [{ not: { not: { not: { not: { not: { not: leaf } } } } } }, ['conditions.not.not.not.not.not']],
    [Array.from({ length: 101 }, () => leaf), ['conditions']],
    [Array.from({ length: 10 }, () => ({ ...leaf, operator: 'matches' })), []],
    [{ all: Array.from({ length: 13 }, () => ({ not: { ...leaf, operator: 'matches' } })) }, ['conditions.all[10].not.operator']],
    [{ all: Array.from({ length: 2 }, () => ({ any: Array.from({ length: 60 }, () => leaf) })) }, ['conditions']],
  ])('conditions %j', (value, expected) => expect(paths(conditionsFaults(value))).toEqual(expected));

  it('conditions that are too large in all, by their values or by groups of nothing', () => {
    const large = { field: 'message.content', operator: 'in', value: Array.from({ length: 90 }, (_, n) => `${n} ${'x'.repeat(170)}`) };
    expect(conditionsFaults([large])).toBeUndefined();
    const groups = Array.from({ length: 40 }, () => ({ all: Array.from({ length: 40 }, () => ({ any: [] })) }));
    for (const conditions of [[large, large], { any: groups }])
      expect(conditionsFaults(conditions)).toEqual([{ path: [], message: 'must have at most 16384 characters in all, as JSON' }]);
  });

  it.each<[unknown, string | undefined]>([
    ['message.received', undefined],
    ['message.lost', ''],
    [{ type: 'unassigned_for', seconds: 60 }, undefined],
    [{ type: 'in_status_for', seconds: 60, status: 'resolved' }, undefined],
    [{ type: 'unassigned_for', seconds: 60, status: 'open' }, 'status'],
    [{ type: 'in_status_for', seconds: 0 }, 'seconds'],
    [{ type: 'in_status_for' }, 'seconds'],
    [{ type: 'message.received', seconds: 5 }, 'type'],
    [{ type: 'in_status_for', seconds: 60, status: 'lost' }, 'status'],
    [7, ''],
  ])('the trigger %j', (value, at) => {
    const faults = triggerFaults(value);
    expect(faults === undefined ? undefined : typeof faults === 'string' ? '' : fieldPath(faults[0]?.path ?? [])).toBe(at);
  });

  it('what can never hold or be done, by its path', () => {
    const faults = (more: Partial<RuleFields>) =>
      impossibleFaults(partsOf({ ...fields, conditions: [], ...more }), Date.UTC(2026, 0, 1)).map(({ path }) => fieldPath(path));
    const previous = (of: string): Conditions => ({ any: [{ field: `previous.${of}`, operator: 'is_set' }] });
    expect(faults({ conditions: previous('status') })).toEqual(['conditions.any[0].field']);
    expect(faults({ trigger: 'conversation.updated', conditions: previous('customAttributes.x') })).toEqual([]);
    expect(faults({ trigger: 'conversation.assigned', conditions: previous('tags') })).toEqual(['conditions.any[0].field']);
    expect(faults({ trigger: 'conversation.resolved', conditions: previous('status') })).toEqual([]);
    expect(faults({ trigger: 'conversation.created', conditions: fields.conditions })).toEqual(['conditions[0].field']);
    expect(faults({ actions: [{ type: 'unassign' }, { type: 'snooze', until: '2025-12-31T00:00:00.000Z' }] })).toEqual([
      'actions[1].until',
    ]);
  });

  it('finds the parts without faults of a rule that has some', () => {
    const sound = { field: 'conversation.teamId', operator: 'equals', value: 't' };
    const conditions = {
      all: [{ any: [sound, { ...leaf, operator: 'like' }, 7] }, { not: { ...sound, value: null } }, { any: 'x' }, { not: sound, more: 1 }],
    };
    const actions = [5, { type: 'assign', assigneeId: 'a b' }, { type: 'assign', assigneeId: 'a' }, { type: 'snooze', until: 'later' }, {}];
    expect(soundPartsOf({ trigger: 'message.lost', conditions, actions })).toEqual({
      trigger: undefined,
      leaves: [
        { path: ['all', 0, 'any', 0], leaf: sound },
        { path: ['all', 3, 'not'], leaf: sound },
      ],
      actions: [{ index: 2, action: actions[2] }],
    });
    for (const none of [undefined, null, 7, 'x'])
      expect(soundPartsOf({ conditions: none, actions: none })).toMatchObject({ leaves: [], actions: [] });
  });

  it('finds everything that a rule names', () => {
    const conditions: Conditions = {
      any: [
        { field: 'conversation.assigneeId', operator: 'in', value: ['a', 'b'] },
        { field: 'conversation.teamId', operator: 'not_equals', value: 't' },
        { field: 'conversation.inboxId', operator: 'is_set' },
      ],
    };
    expect(
      referencesOf(partsOf({ ...fields, conditions, actions: [{ type: 'unassign' }, { type: 'assign', assigneeId: 'c' }] })),
    ).toMatchObject([
      { path: ['conditions', 'any', 0, 'value', 0], what: 'assignee', id: 'a', assigned: false },
      { path: ['conditions', 'any', 0, 'value', 1], what: 'assignee', id: 'b' },
      { path: ['conditions', 'any', 1, 'value'], what: 'team', id: 't' },
      { path: ['actions', 1, 'assigneeId'], what: 'assignee', id: 'c', assigned: true },
    ]);
  });
});

it('stores every field with every operator of its type, and reads it back', () => {
  const value: Record<string, Condition['value']> = {
    text: 'a',
    id: 'a',
    choice: undefined,
    tags: 'a',
    number: 1,
    flag: true,
    attribute: 'a',
  };
  const names = [...Object.entries(FIELDS), ...Object.entries(ATTRIBUTE_FIELDS).map(([prefix, field]) => [`${prefix}x`, field] as const)];
  for (const [field, { type, ...more }] of names)
    for (const operator of OPERATORS_OF[type]) {
      const one = operator.endsWith('_than') ? 1 : 'choices' in more ? more.choices[0] : value[type];
      const condition = {
        field,
        operator,
        ...(operator.startsWith('is_') ? {} : { value: operator === 'in' || operator === 'not_in' ? [one as string] : one }),
      } as Condition;
      expect([field, operator, conditionsFaults([condition])]).toEqual([field, operator, undefined]);
      const state = given(ruleAggregate, { type: 'RuleCreated', data: { ...fields, conditions: conditionsOf([condition]) } }).state;
      expect(state.conditions).toEqual([condition]);
      expect(() => evaluate(state, seeing({}))).not.toThrow();
    }
  for (const type of TIME_TRIGGERS) given(ruleAggregate, { type: 'RuleCreated', data: { ...fields, trigger: { type, seconds: 5 } } });
  for (const trigger of EVENT_TRIGGERS) given(ruleAggregate, { type: 'RuleCreated', data: { ...fields, trigger } });
  expect(patternFault('a|b')).toBeUndefined();
});
