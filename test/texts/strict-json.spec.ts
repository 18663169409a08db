import { ThreadlogError } from '../../src/errors.js';
import { parseStrictJson } from '../../src/texts/strict-json.js';

/** The fields that are refused, with what is said of them. */
function refused(text: string): unknown {
  try {
    parseStrictJson(text);
  } catch (error) {
    if (error instanceof ThreadlogError) return error.extra.errors?.map(({ field, message }) => `${field} ${message}`) ?? error.code;
    throw error;
  }
  return undefined;
}

describe('a number in JSON', () => {
  test.each([
    '0',
    '-0',
    '0.0',
    '0e400',
    '0.1',
    '1.10',
    '1e3',
    '100e-2',
    '1E+2',
    '4.000',
    '123456789012345.5',
    '0.30000000000000004',
    '9007199254740991',
    '9007199254740992',
    '12345678901234568',
    '1e21',
    '1.7976931348623157e308',
    '5e-324',
    `1${'0'.repeat(22)}`,
    `1${'0'.repeat(400)}e-400`,
    `0.${'0'.repeat(400)}1e401`,
    '0.10000000000000000000',
    '1.5e0000000000000000000001',
  ])('%s is taken as it is', (literal) => {
    expect(parseStrictJson(`{"n":${literal}}`)).toEqual({ n: Number(literal) });
  });

  test.each([
    '12345678901234567',
    '9007199254740993',
    '4.0000000000000001',
    '0.1000000000000000055',
    '1e400',
    '-1e400',
    '1e-400',
    '2e-324',
    '123456789.1234567891',
    '1e99999999999999999999',
    '1e-99999999999999999999',
  ])('%s would be rounded, and is refused', (literal) => {
    expect(refused(`{"n":${literal}}`)).toEqual([expect.stringMatching(/^n is (a number that would be rounded to |too large a number)/)]);
  });

  test('is named by its path, wherever it stands and whatever stands around it', () => {
    const bad = '12345678901234567';
    expect(
      refused(`{"a":[1,[2,${bad}],{"b \\"c":${bad}}],"text, [1] {2}: 12345678901234567":"${bad}","list":[{},[],"x",${bad}],"last":1e400}`),
    ).toEqual([
      'a[1][1] is a number that would be rounded to 12345678901234568',
      'a[2].b "c is a number that would be rounded to 12345678901234568',
      'list[3] is a number that would be rounded to 12345678901234568',
      'last is too large a number to be kept',
    ]);
  });

  test('of which there are very many is told for the first hundred of them', () => {
    const started = performance.now();
    expect(refused(`{"n":[${'1e400,'.repeat(80_000)}1]}`)).toHaveLength(100);
    expect(refused(`{"n":1.${'0'.repeat(500_000)}1}`)).toHaveLength(1);
    expect(performance.now() - started).toBeLessThan(2_000);
  });
});
