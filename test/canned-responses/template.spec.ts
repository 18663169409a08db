import { ThreadlogError } from '../../src/errors.js';
import { parseTemplate, renderTemplate, type TemplateValues } from '../../src/canned-responses/template.js';

const values: TemplateValues = {
  visitor: {
    name: 'Grace',
    email: 'grace@example.com',
    attributes: { plan: 'pro', seats: 12, trial: false, 'last order': '#7', 'ö.x': 'y' },
  },
  agent: { name: 'Ada Ortiz' },
  company: { name: 'Acme' },
};
const nothing: TemplateValues = { visitor: { name: null, email: null, attributes: {} }, agent: { name: null }, company: { name: null } };

const refusal = (content: string): string => {
  try {
    parseTemplate(content);
  } catch (error) {
    if (error instanceof ThreadlogError && error.code === 'unknown_variable') return error.extra.errors?.[0]?.message ?? '';
    throw error;
  }
  throw new Error(`${content} was taken`);
};

test.each([
  ['no placeholder', 'no placeholder'],
  ['Hi {{visitor.name}}! Thanks for reaching out.', 'Hi Grace! Thanks for reaching out.'],
  ['{{visitor.email}}{{agent.name}}{{company.name}}', 'grace@example.comAda OrtizAcme'],
  ['{{ visitor.name }}{{\tvisitor.name\n}}', 'GraceGrace'],
  ['{{visitor.name | "there"}}, {{visitor.name|"there"}}', 'Grace, Grace'],
  ['{{visitor.attributes.plan}} {{visitor.attributes.seats}} {{visitor.attributes.trial}}', 'pro 12 false'],
  ['{{visitor.attributes.last order}} {{ visitor.attributes.ö.x | "z" }}', '#7 y'],
  ['a } b }} c { d', 'a } b }} c { d'],
])('%j says %j', (content, text) => {
  expect(renderTemplate(content, values)).toEqual({ text, missing: [] });
});

test.each([
  ['Hi {{visitor.name | "there"}}!', 'Hi there!', ['visitor.name']],
  ['Hi {{visitor.name}}!', 'Hi !', ['visitor.name']],
  ['{{visitor.name | ""}}', '', ['visitor.name']],
  ['{{visitor.name | "}} | {{x}}"}}', '}} | {{x}}', ['visitor.name']],
  ['{{company.name}}{{agent.name}}{{company.name|"us"}}{{visitor.email}}', 'us', ['company.name', 'agent.name', 'visitor.email']],
  ['{{visitor.attributes.plan | "free"}}', 'free', ['visitor.attributes.plan']],
  [
    '{{visitor.attributes.constructor}}{{visitor.attributes.__proto__}}',
    '',
    ['visitor.attributes.constructor', 'visitor.attributes.__proto__'],
  ],
])('%j without values says %j and tells what is missing', (content, text, missing) => {
  expect(renderTemplate(content, nothing)).toEqual({ text, missing });
});

test.each(['', ' ', '\t\u00a0', '\u200b', '\u2800'])('%j is no value', (blank) => {
  const blanks = { visitor: { name: blank, email: blank, attributes: { first: blank } }, agent: { name: blank }, company: { name: blank } };
  expect(renderTemplate('{{visitor.attributes.first | "there"}}/{{visitor.name | "you"}}/{{agent.name}}{{company.name}}', blanks)).toEqual({
    text: 'there/you/',
    missing: ['visitor.attributes.first', 'visitor.name', 'agent.name', 'company.name'],
  });
});

test('what is put in is not looked at again', () => {
  const { text } = renderTemplate('{{visitor.name}}', {
    ...values,
    visitor: { ...values.visitor, name: '{{agent.name}} $& {{constructor}}' },
  });
  expect(text).toBe('{{agent.name}} $& {{constructor}}');
});

test.each([
  '{{constructor}}',
  '{{__proto__}}',
  '{{visitor}}',
  '{{visitor.phone}}',
  '{{Visitor.Name}}',
  '{{visitor.name.length}}',
  '{{visitor["name"]}}',
  '{{visitor.attributes}}',
  '{{visitor.attributes.}}',
  `{{visitor.attributes.${'x'.repeat(129)}}}`,
  '{{}}',
  '{{ }}',
  '{{#each visitor}}',
  '{{/each}}',
  '{{{visitor.name}}}',
  '{{1 | valueOf}}',
  '{{visitor.name | there}}',
  "{{visitor.name | 'there'}}",
  '{{visitor.name | “there”}}',
  '{{visitor.name | "there}}',
  '{{visitor.name | "a" | "b"}}',
  '{{visitor.name | "a" b}}',
  '{{visitor.name | upcase}}',
  '{{visitor.name',
  'Hi {{',
  '{{ {{visitor.name}} }}',
  '{{visitor.name}',
])('%j is refused', (content) => {
  expect(refusal(`{{visitor.name}} ${content}`)).toContain('{{');
});

test('the time is that of one pass, whatever is in it', () => {
  const start = performance.now();
  const long = 50_000;
  for (const content of [
    `{{${' '.repeat(long)}`,
    `{{visitor.name${' '.repeat(long)}|${' '.repeat(long)}`,
    `{{visitor.name |"${'"'.repeat(long)}`,
    '{{visitor.name|"'.repeat(long / 10),
  ])
    refusal(content);
  parseTemplate('{{visitor.name}}'.repeat(long / 10));
  parseTemplate('}'.repeat(long) + '{ '.repeat(long));
  // A pattern that goes back over these takes minutes.
  expect(performance.now() - start).toBeLessThan(2_000);
});
