import { csv } from '../../src/http/streamed.js';

const lines = async (...cells: readonly (string | readonly string[] | null)[]): Promise<string[]> => {
  const pieces: string[] = [];
  for await (const piece of csv(['cell'], [cells.map((cell) => ({ cell }))])) pieces.push(piece);
  return pieces.join('').split('\r\n').slice(1, -1);
};

test('no cell is a formula, whether a spreadsheet splits at commas or at semicolons', async () => {
  expect(await lines('=1+1', '+1', '-1', '@A1', 'a=1', '1-1')).toEqual(["'=1+1", "'+1", "'-1", "'@A1", 'a=1', '1-1']);
  expect(await lines(['vip', '=1+1'], ['=1', '=2'], ['vip', 'a=1'], [])).toEqual(["vip; '=1+1", "'=1; '=2", 'vip; a=1', '']);
  expect(await lines('a;=1+1', 'a;  @x', ['a;-1', ';+1'], ';;=1')).toEqual(["a;'=1+1", "a;  '@x", "a;'-1; ;'+1", ";;'=1"]);
  expect(await lines('a;\t=1', '\t=1')).toEqual(["a;'\t=1", "'\t=1"]);
});
