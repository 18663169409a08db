import { createHook } from 'node:async_hooks';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import { namesFrom, NotReachable, NotResolved, parseNetworks, Reachable } from '../../src/http-out/reachable.js';

/** Spellings of addresses that nobody outside may have us ask, as people have tried them. */
const PRIVATE = [
  '127.0.0.1',
  '127.1',
  '2130706433',
  '0x7f.1',
  '0x7f000001',
  '0177.0.0.1',
  '017700000001',
  '0',
  '0.0.0.0',
  '[::1]',
  '[::]',
  '[::ffff:127.0.0.1]',
  '[::ffff:7f00:1]',
  '[::127.0.0.1]',
  '[::ffff:0:127.0.0.1]',
  '10.0.0.1',
  '172.16.0.1',
  '192.168.1.1',
  '169.254.169.254',
  '[::ffff:169.254.169.254]',
  '[fd00:ec2::254]',
  '100.64.0.1',
  '100.100.100.200',
  '192.0.0.192',
  '168.63.129.16',
  '[::ffff:168.63.129.16]',
  '0xa83f8110',
  '192.80.8.124',
  '192.0.2.1',
  '198.51.100.1',
  '203.0.113.1',
  '198.18.0.1',
  '192.88.99.1',
  '224.0.0.1',
  '240.0.0.1',
  '255.255.255.255',
  '[64:ff9b::7f00:1]',
  '[64:ff9b::a9fe:a9fe]',
  '[64:ff9b:1::7f00:1]',
  '[2002:7f00:1::]',
  '[2001::1]',
  '[2001:db8::1]',
  '[3fff::1]',
  '[5f00::1]',
  '[100::1]',
  '[fc00::1]',
  '[fd00::1]',
  '[fe80::1]',
  '[fec0::1]',
  '[ff02::1]',
];

const named = (addresses: readonly string[]) => new Reachable([], () => Promise.resolve(addresses));
const target = { protocol: 'https:', host: 'name.example', port: 443 };

describe('an address that a customer names', () => {
  test.each(PRIVATE)('is not reached as https://%s/', async (host) => {
    expect(new Reachable().faultOf(`https://${host}/`)).toMatch(/private|https/);
    // The same as the answer of a name server.
    const address = new URL(`https://${host}/`).hostname.replace(/^\[|\]$/g, '');
    await expect(named([address]).addressesOf(target)).rejects.toThrow(NotReachable);
    expect(await named([address]).faultNow('https://name.example/')).toMatch(/private/);
  });

  test.each([
    ['one private among public ones', ['93.184.216.34', '127.0.0.1']],
    ['one of version 6 that is private', ['93.184.216.34', '::1']],
    ['what is no address', ['93.184.216.34', 'localhost']],
    ['one with a zone', ['fe80::1%eth0']],
  ])('is not reached by a name with %s', async (_, addresses) => {
    await expect(named(addresses).addressesOf(target)).rejects.toThrow(NotReachable);
  });

  test('is reached at public addresses over https, at the ports that are open', async () => {
    for (const address of ['93.184.216.34', '8.8.8.8', '2606:4700::1111'])
      expect(await named([address]).addressesOf(target)).toEqual([address]);
    for (const url of ['https://93.184.216.34/', 'https://[2606:4700::1111]/x', 'https://name.example:8443/', 'HTTPS://name.example'])
      expect(new Reachable().faultOf(url)).toBeUndefined();
  });

  test.each([
    ['http://93.184.216.34/', 'https'],
    ['http://name.example/', 'https'],
    ['https://name.example:22/', 'ports'],
    ['https://name.example:25/', 'ports'],
    ['https://93.184.216.34:5432/', 'ports'],
    ['https://me@name.example/', 'user'],
    ['https://me:secret@name.example/', 'user'],
    ['ftp://name.example/', 'https'],
    ['file:///etc/passwd', 'https'],
    ['gopher://name.example/', 'https'],
    ['https://', 'https'],
    ['name.example', 'https'],
  ])('is refused as %s', (url, word) => {
    expect(new Reachable().faultOf(url)).toContain(word);
  });

  test('may not resolve yet', async () => {
    const silent = new Reachable([], () => Promise.reject(new NotResolved('no address')));
    expect(await silent.faultNow('https://name.example/')).toBeUndefined();
    await expect(silent.addressesOf(target)).rejects.toThrow(NotResolved);
    await expect(named([]).addressesOf(target)).rejects.toThrow(NotResolved);
  });
});

describe('the networks of the operator', () => {
  const own = (addresses: readonly string[]) => new Reachable(parseNetworks('10.1.0.0/16, fd00:1::/32'), () => Promise.resolve(addresses));

  test('are reached over http and at any port, and nothing beside them', async () => {
    for (const url of ['http://10.1.2.3:9000/', 'https://10.1.2.3:22/', 'http://[fd00:1::5]/'])
      expect(own([]).faultOf(url)).toBeUndefined();
    for (const url of ['http://10.2.0.1/', 'https://10.2.0.1/', 'http://[fd00:2::5]/', 'http://169.254.169.254/', 'http://93.184.216.34/'])
      expect(own([]).faultOf(url)).toBeDefined();
    const plain = { protocol: 'http:', host: 'inside.example', port: 9000 };
    // A platform's own addresses are like any other of the operator's.
    expect(new Reachable(['168.63.129.16/32']).faultOf('http://168.63.129.16/')).toBeUndefined();
    expect(await own(['10.1.2.3']).addressesOf(plain)).toEqual(['10.1.2.3']);
    expect(await own(['::ffff:10.1.2.3']).addressesOf(plain)).toEqual(['::ffff:10.1.2.3']);
    for (const address of ['93.184.216.34', '10.2.0.1', '127.0.0.1'])
      await expect(own([address]).addressesOf(plain)).rejects.toThrow(NotReachable);
    await expect(own(['10.1.2.3', '93.184.216.34']).addressesOf(plain)).rejects.toThrow(NotReachable);
  });

  test.each(['10.1.0.0', '10.1.0.0/33', 'inside.example', ''])('cannot be %p', (network) => {
    expect(() => parseNetworks(network)).toThrow('is no network');
  });
});

test('whatever the spelling, the address that is dialled decides', async () => {
  await fc.assert(
    fc.asyncProperty(fc.ipV4(), fc.constantFrom('plain', 'number', 'hex', 'mapped'), async (address, spelling) => {
      const value = ipaddr.IPv4.parse(address)
        .toByteArray()
        .reduce((sum, byte) => sum * 256 + byte, 0);
      const host = { plain: address, number: String(value), hex: `0x${value.toString(16)}`, mapped: `[::ffff:${address}]` }[spelling];
      const mayBe = ipaddr.IPv4.parse(address).range() === 'unicast';
      expect(new Reachable().faultOf(`https://${host}/`) === undefined).toBe(mayBe);
      const dialled = await named([address])
        .addressesOf(target)
        .catch(() => undefined);
      expect(dialled !== undefined).toBe(mayBe);
    }),
  );
});

describe('a name', () => {
  const servers: Socket[] = [];
  afterAll(() => {
    for (const one of servers) one.close();
  });
  async function nameServer(answer: (query: Buffer) => Buffer | undefined): Promise<string> {
    const server = createSocket('udp4');
    servers.push(server);
    server.on('message', (query, { port, address }) => {
      const answered = answer(query);
      if (answered !== undefined) server.send(answered, port, address);
    });
    server.bind(0, '127.0.0.1');
    await once(server, 'listening');
    return `127.0.0.1:${server.address().port}`;
  }

  test('is looked up in the hosts file first, whatever the case', async () => {
    const names = namesFrom([await nameServer(() => undefined)]);
    for (const name of ['localhost', 'LOCALHOST']) expect(await names(name)).toContain('127.0.0.1');
  });

  test('that no name server knows, or answers for, takes no thread and some seconds at most', async () => {
    const unknown = await nameServer((query) => {
      const answer = Buffer.from(query);
      // An answer: there is no such name.
      answer.writeUInt16BE(0x8183, 2);
      return answer;
    });
    const silent = await nameServer(() => undefined);
    let threads = 0;
    const watching = createHook({ init: (_, type) => void (type === 'GETADDRINFOREQWRAP' && threads++) }).enable();
    try {
      const began = performance.now();
      await expect(namesFrom([unknown])('nobody.example')).rejects.toThrow('nobody.example has no address');
      expect(performance.now() - began).toBeLessThan(2_000);
      await expect(namesFrom([silent, silent])('slow.example')).rejects.toThrow('no name server answered for slow.example');
      expect(performance.now() - began).toBeLessThan(7_000);
    } finally {
      watching.disable();
    }
    expect(threads).toBe(0);
  }, 20_000);
});
