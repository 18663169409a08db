import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Files of a folder and those below it. */
const filesBelow = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name));

const withoutComments = (text: string) => text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/\/\/.*$/gm, '');

const offenders = (files: readonly string[], pattern: RegExp) =>
  files.filter((file) => pattern.test(withoutComments(readFileSync(file, 'utf8'))));

// What imports cannot tell; the imports themselves are checked by .dependency-cruiser.cjs.
describe('the layers', () => {
  const sources = [...filesBelow('src'), ...filesBelow('projections')];
  const domain = [
    'src/conversations/conversation.ts',
    'src/visitors/visitor.ts',
    'src/commands/claim.ts',
    'src/canned-responses/canned-response.ts',
    'src/canned-responses/template.ts',
    'src/companies/company.ts',
    'src/inboxes/inbox.ts',
    'src/team/assignee.ts',
    'src/organizations/organization.ts',
    'src/api-keys/api-key.ts',
    'src/views/view.ts',
  ];

  test('keep clock and chance out of the domain', () => {
    expect(domain.every((file) => sources.includes(file))).toBe(true);
    expect(offenders(domain, /Date\.now|new Date\(\)|Math\.random|randomUUID|randomBytes|performance\.|process\./)).toEqual([]);
  });

  test('keep clock and chance out of projections', () => {
    const projections = sources.filter((file) => file.endsWith('.projection.ts'));
    expect(projections.length).toBeGreaterThan(1);
    expect(offenders(projections, /Date\.now|new Date\(\)|Math\.random|randomUUID|now\(\)/)).toEqual([]);
  });

  test('read the environment in one file', () => {
    expect(offenders(sources, /process\.env/)).toEqual(['src/config.ts']);
  });

  test('swallow an error in one place, which says why', () => {
    // A handler that gives nothing, takes no error and does nothing; a block that is empty.
    expect(
      offenders(
        sources,
        /\.catch\(\s*(async\s*)?\(\s*_?\w*\s*\)\s*=>\s*(undefined|null|void 0|\{\s*\})\s*,?\s*\)|catch\s*(\(\w+\)\s*)?\{\s*\}/,
      ),
    ).toEqual([]);
  });

  test('never hang a projection or reactor on the in-process event bus', () => {
    expect(offenders(sources, /EventBus|@EventsHandler|\bSaga\b/)).toEqual([]);
  });
});
