import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { printable, printableJson } from '../../src/cli/printable.js';
import { Terminal } from '../../src/cli/terminal.js';

// Clears the screen, ends the line, turns the order round and opens a control sequence in one character.
const HOSTILE = 'Eve\u001b[2J\r\n\u202eevE\u009b31m\u0000\u2028';
const SHOWN = String.raw`Eve\u{1b}[2J\u{d}\u{a}\u{202e}evE\u{9b}31m\u{0}\u{2028}`;

/** What a terminal was given, and what it was told beside the answer. */
async function written(write: (terminal: Terminal) => void): Promise<[string, string]> {
  const [output, errors] = [
    Object.assign(new PassThrough(), { isTTY: true }),
    Object.assign(new PassThrough(), { isTTY: true, columns: 200 }),
  ];
  const texts = Promise.all([text(output), text(errors)]);
  write(new Terminal(output as unknown as NodeJS.WriteStream, errors as unknown as NodeJS.WriteStream));
  output.end();
  errors.end();
  return texts;
}

test('a text of others is shown on its line, and steers nothing', async () => {
  expect(printable(HOSTILE)).toBe(SHOWN);
  expect(printable('Zoë, 漢字, 👩\u200d👧, می\u200cخواهم')).toBe('Zoë, 漢字, 👩\u200d👧, می\u200cخواهم');
  expect(await written((terminal) => terminal.answer(HOSTILE))).toEqual([`${SHOWN}\n`, '']);
  expect(await written((terminal) => terminal.note(HOSTILE))).toEqual(['', `${SHOWN}\n`]);
  expect((await written((terminal) => terminal.progress(HOSTILE)))[1]).toBe(`\r\u001b[K${SHOWN}`);
});

test('a table keeps its columns, whatever is in them', async () => {
  const [table] = await written((terminal) =>
    terminal.table(
      ['ID', 'NAME', 'END'],
      [
        ['a', HOSTILE, 'x'],
        ['b', 'Ada', 'y'],
      ],
      '',
    ),
  );
  const lines = table.trimEnd().split('\n');
  expect(lines).toHaveLength(3);
  expect(lines[1]).toBe(`a   ${SHOWN}  x`);
  expect(new Set(lines.map((line) => line.search(/(END|x|y)$/))).size).toBe(1);
});

test('JSON is the same document, and steers nothing', async () => {
  const value = { [HOSTILE]: [HOSTILE, 'Zoë 👩\u200d👧', '\u{e0001}', 1] };
  expect(JSON.parse(printableJson(value))).toEqual(value);
  const [output] = await written((terminal) => terminal.json(value));
  expect(JSON.parse(output)).toEqual(value);
  expect(output.trimEnd()).not.toMatch(/[\p{Cc}\u2028\u202e]/u);
  expect(output).toContain('Zoë 👩\u200d👧');
});
