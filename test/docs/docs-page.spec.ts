import { spawnSync } from 'node:child_process';
import { AppModule } from '../../src/app.module.js';
import { curlExamples } from '../../src/docs/curl-example.js';
import { docsPage } from '../../src/docs/docs-page.js';
import { COLORS } from '../../src/docs/docs-page.style.js';
import { openApiDocument } from '../../src/docs/openapi.js';

/* The page of the API as far as it can be judged without a browser. */

const document = openApiDocument(AppModule.controllers);
const page = docsPage(document);
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })),
);

test('holds everything itself, and one script, at its end', () => {
  expect(page).not.toMatch(/<link|<img|<iframe|@import|url\(|\s(src|style|on\w+)=/i);
  expect(page.match(/<script>/g)).toHaveLength(1);
  expect(page.indexOf('<script>')).toBeGreaterThan(page.indexOf('</main>'));
});

test('refers to nothing that is not there, and to each id once', () => {
  const ids = [...page.matchAll(/\sid="([^"]*)"/g)].map(([, id = '']) => id);
  expect(new Set(ids).size).toBe(ids.length);
  for (const [, target = ''] of (page.split('<script>', 1)[0] ?? '').matchAll(/href="([^"]*)"/g)) {
    if (target === 'docs.json') continue;
    expect([target, target.startsWith('#') && ids.includes(target.slice(1))]).toEqual([target, true]);
  }
});

test('has every operation with its description, a link to itself, and an example', () => {
  for (const { operation } of operations) {
    const [, section = ''] = new RegExp(`<section id="${operation.operationId}"([^]*?)</section>`).exec(page) ?? [];
    expect([operation.operationId, section.includes(`<h3><a href="#${operation.operationId}"`)]).toEqual([operation.operationId, true]);
    expect([operation.operationId, /<div class="example"[^>]*><pre>curl /.test(section)]).toEqual([operation.operationId, true]);
    expect([operation.operationId, /data-search="[^"]+"/.test(section)]).toEqual([operation.operationId, true]);
  }
});

test('shows commands that a shell reads as they are meant', () => {
  const body = { message: `It's "here": $HOME \`x\` \\ {{visitor.name | "there"}}` };
  const tricky = { operationId: 'x', summary: '', description: '', tags: [], parameters: [], responses: {}, 'x-roles': ['admin'] } as const;
  const content = { 'application/json': { schema: {}, examples: { tricky: { value: body } } } };
  const all = [...operations, { method: 'POST', path: '/x/{id}', operation: { ...tricky, requestBody: { required: true, content } } }];
  const commands = all.flatMap(({ method, path, operation }) => {
    const bodies = Object.values(operation.requestBody?.content['application/json']?.examples ?? {}).map(({ value }) => value);
    return curlExamples(method, path, operation).map(({ command }, index) => ({ method, path, command, value: bodies[index] }));
  });
  const shell = `curl() { for argument; do printf '%s\\037' "$argument"; done; printf '\\036'; }\nTHREADLOG_URL=http://x THREADLOG_KEY=k\n`;
  const { stdout, stderr } = spawnSync('sh', ['-c', shell + commands.map(({ command }) => command).join('\n')], { encoding: 'utf8' });
  expect(stderr).toBe('');
  const sent = stdout.split('\x1e').slice(0, -1);
  expect(sent).toHaveLength(commands.length);
  for (const [index, { method, path, value }] of commands.entries()) {
    const words = sent[index]?.split('\x1f') ?? [];
    expect(words).toContain(`http://x${path.replaceAll(/\{(\w+)\}/g, (_, name: string) => name.toUpperCase())}`);
    if (method !== 'GET') expect(words.slice(0, 2)).toEqual(['-X', method]);
    if (value !== undefined) expect(JSON.parse(words[words.indexOf('-d') + 1] ?? '')).toEqual(value);
  }
});

/** WCAG 2.2, contrast ratio. */
function contrast(one: string, two: string): number {
  const luminance = (color: string) => {
    const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
      const part = Number.parseInt(color.slice(at, at + 2), 16) / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const [high = 0, low = 0] = [luminance(one), luminance(two)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}

test.each(Object.entries(COLORS))('can be read: %s', (_, { background, soft, text, muted, link }) => {
  for (const color of [text, muted, link])
    for (const behind of [background, soft]) expect(contrast(color, behind)).toBeGreaterThanOrEqual(4.5);
  // And uses no colour beside them.
  const [, style = ''] = /<style>([^]*)<\/style>/.exec(page) ?? [];
  const known = Object.values(COLORS).flatMap((colors) => Object.values(colors) as string[]);
  expect([...style.matchAll(/#[0-9a-f]{3,8}\b/gi)].map(([color]) => color).filter((color) => !known.includes(color))).toEqual([]);
  expect(style).not.toContain('opacity');
});
