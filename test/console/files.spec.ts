import { brotliDecompressSync, gunzipSync, gzipSync } from 'node:zlib';
import { request } from 'undici';
import { startApi, type TestApi } from '../support/api.js';
import { buildConsole } from '../support/console-build.js';

/** Bytes of the first load, gzipped. */
const MOST_SCRIPT = 60 * 1_024;
const MOST_STYLE = 12 * 1_024;

let api: TestApi;
beforeAll(async () => {
  await buildConsole();
  api = await startApi();
});
afterAll(() => api.stop());

async function get(path: string, headers: Record<string, string> = {}, method: 'GET' | 'HEAD' | 'POST' = 'GET') {
  const answer = await request(`${api.url}${path}`, { method, headers });
  return { status: answer.statusCode, headers: answer.headers, bytes: Buffer.from(await answer.body.arrayBuffer()) };
}

const assetsOf = (page: Buffer) => [...page.toString().matchAll(/(?:src|href)="([^"]+)"/g)].map(([, address = '']) => address);

test('every address of the console is the page, which allows its own host alone and nothing unsafe', async () => {
  const page = await get('/console');
  for (const path of ['/console/', '/console/support', '/console/support/conversations/x%2Fy?view=mine', '/console/index.html'])
    expect((await get(path)).bytes.equals(page.bytes)).toBe(true);
  expect(page.status).toBe(200);
  expect(page.headers).toMatchObject({
    'content-type': 'text/html; charset=utf-8',
    'cache-control': 'no-cache',
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
  });
  const policy = String(page.headers['content-security-policy']);
  expect(policy).toContain("default-src 'none'");
  expect(policy).toContain("require-trusted-types-for 'script'");
  expect(policy).not.toMatch(/unsafe|https?:|\*|data:/);
  for (const address of assetsOf(page.bytes)) expect(address).toMatch(/^\/console\/assets\/[a-z]+-[A-Za-z0-9]{10}\.(js|css|svg)$/);
  expect(page.bytes.toString()).not.toMatch(/<script(?![^>]*src)|\sstyle=|\son\w+=/);
});

test('what the page loads has its content in its name, is kept for ever, and comes compressed', async () => {
  const assets = assetsOf((await get('/console')).bytes);
  expect(assets).toHaveLength(3);
  for (const address of assets) {
    const plain = await get(address);
    expect(plain.headers['cache-control']).toBe('public, max-age=31536000, immutable');
    const br = await get(address, { 'accept-encoding': 'gzip, deflate, br' });
    const gzip = await get(address, { 'accept-encoding': 'gzip, br;q=0' });
    expect([br.headers['content-encoding'], gzip.headers['content-encoding']]).toEqual(['br', 'gzip']);
    expect(brotliDecompressSync(br.bytes).equals(plain.bytes)).toBe(true);
    expect(gunzipSync(gzip.bytes).equals(plain.bytes)).toBe(true);
    const again = await get(address, { 'if-none-match': String(plain.headers['etag']) });
    expect([again.status, again.bytes.length]).toEqual([304, 0]);
    const head = await get(address, {}, 'HEAD');
    expect([head.status, head.bytes.length]).toEqual([200, 0]);
  }
  expect((await get('/console/assets/none.js')).status).toBe(404);
  expect((await get('/console/assets/../manifest.json')).headers['content-type']).toContain('text/html');
  expect((await get('/console/assets/%2e%2e%2fmanifest.json')).status).toBe(404);
});

test('the first load is small', async () => {
  const assets = assetsOf((await get('/console')).bytes);
  const sizeOf = async (end: string) => gzipSync((await get(assets.find((one) => one.endsWith(end)) ?? '')).bytes).length;
  expect(await sizeOf('.js')).toBeLessThan(MOST_SCRIPT);
  expect(await sizeOf('.css')).toBeLessThan(MOST_STYLE);
});
