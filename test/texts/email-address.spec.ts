import { emailKey, formerEmailKeys, isEmailAddress } from '../../src/texts/email-address.js';

test.each([
  'ada@example.com',
  'Ada+x@Example.COM',
  'root@localhost',
  'ada@mail_1.example.com',
  'josé@example.com',
  'ada@münchen.example',
  'ada@xn--mnchen-3ya.example',
])('%s is an address', (address) => {
  expect(isEmailAddress(address)).toBe(true);
});

test.each(['ada', 'ada@', '@example.com', 'a b@example.com', 'a@b@example.com', 'a\u200bda@example.com', 'ada@example.com\u202e', 7])(
  '%j is none',
  (address) => {
    expect(isEmailAddress(address)).toBe(false);
  },
);

test.each([
  ['case', ['  Ada@Example.COM ', 'ada@example.com']],
  ['composition', ['jose\u0301@example.com', 'josé@example.com', 'JOSÉ@EXAMPLE.COM']],
  ['the form of the domain', ['ada@münchen.example', 'ada@mu\u0308nchen.example', 'ada@MÜNCHEN.example', 'ada@XN--mnchen-3ya.example']],
  ['both', ['JOSE\u0301@xn--mnchen-3ya.example', 'josé@München.example']],
])('spellings that differ in %s are one address', (_, spellings) => {
  expect(new Set(spellings.map(emailKey)).size).toBe(1);
});

test('addresses in ASCII are their own key in lower case, which claims of earlier builds are named by', () => {
  for (const address of ['Ada@Example.com', 'root@localhost', 'a_b@c_d.example', 'x@1.2.3.4', 'x@xn--mnchen-3ya.example'])
    expect(emailKey(address)).toBe(address.toLowerCase());
  expect(formerEmailKeys('Ada@Example.com')).toEqual([]);
});

test('whatever spelling an earlier build claimed, every spelling looks for it', () => {
  const spellings = ['ada@münchen.example', 'ada@mu\u0308nchen.example', 'Ada@München.example', 'ada@xn--mnchen-3ya.example'];
  // What an earlier build made of an address.
  const claimed = (address: string) => address.trim().toLowerCase();
  for (const stored of spellings)
    for (const given of spellings) expect([emailKey(given), ...formerEmailKeys(given)]).toContain(claimed(stored));
  expect(formerEmailKeys('josé@example.com')).toEqual(['jose\u0301@example.com']);
});
