import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import type { Browser, BrowserContext, Page, WebSocketRoute } from 'playwright-core';
import { ConsoleSessions } from '../../src/security/console-sessions.js';
import type { Role } from '../../src/security/roles.js';
import { startApi, type TestApi } from '../support/api.js';
import { describeInBrowser, launchBrowser } from '../support/browser.js';
import { buildConsole } from '../support/console-build.js';
import { eventually } from '../support/eventually.js';

/** Each test leaves a picture of its screen here, to be looked at. */
const PICTURES = join(tmpdir(), 'threadlog-console');
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const HOSTILE = [
  '<img src=x onerror="document.title=`broken`"><script>document.title="broken"</script>',
  '<svg onload=alert(1)>‮txt.exe',
  'javascript:alert(1) {{constructor.constructor("alert(1)")()}}',
  '👩‍👩‍👧‍👦 مرحبا بالعالم ',
].join('\n');

describeInBrowser('Support > Inbox', () => {
  let api: TestApi;
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  /** Whatever a page must not do: errors, reports, requests elsewhere. */
  let faults: string[];

  beforeAll(async () => {
    mkdirSync(PICTURES, { recursive: true });
    await buildConsole();
    [api, browser] = await Promise.all([startApi(), launchBrowser()]);
    await api.expect(201, 'POST', '/agents', { body: { id: 'ada', name: 'Ada Ortiz', email: 'ada@example.com' } });
  });
  afterAll(async () => {
    await browser?.close();
    await api?.stop();
  });
  beforeEach(async () => {
    faults = [];
    ({ context, page } = await newPage());
  });
  afterEach(async () => {
    await page.screenshot({ path: join(PICTURES, `${expect.getState().currentTestName?.replaceAll(/\W+/g, '-') ?? 'test'}.png`) });
    await context.close();
    expect(faults).toEqual([]);
  });

  async function newPage(options: Parameters<Browser['newContext']>[0] = { viewport: { width: 1_280, height: 800 } }) {
    const made = await browser.newContext(options);
    const opened = await made.newPage();
    // A step that hangs is named before the whole test is given up.
    opened.setDefaultTimeout(10_000);
    opened.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) faults.push(message.text());
    });
    opened.on('pageerror', (error) => faults.push(String(error)));
    opened.on('request', (request) => {
      if (new URL(request.url()).host !== new URL(api.url).host) faults.push(`asks for ${request.url()}`);
    });
    return { context: made, page: opened };
  }

  /** By a link, as the first start prints it. */
  async function signIn(on: Page, key: string, path = '/console/support'): Promise<void> {
    await on.context().request.post(`${api.url}/console/session`, {
      headers: { 'x-threadlog-console': '1', origin: api.url },
      data: { key },
    });
    await on.goto(`${api.url}${path}`);
    await on.getByText('Live', { exact: true }).waitFor();
  }

  const asAda = () => api.keyFor('agent', { agentId: 'ada' });

  let count = 0;
  async function conversation(message = 'Where is my parcel?', name = `Visitor ${++count}`): Promise<{ id: string; name: string }> {
    const { body } = await api.expect(201, 'POST', '/conversations', { body: { visitor: { name }, message } });
    return { id: body.data.id as string, name };
  }
  const visitorSays = (id: string, message: string) => api.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message } });
  const messagesOf = async (id: string) =>
    (await api.expect(200, 'GET', `/conversations/${id}`)).body.data.messages as {
      type: string;
      content: string;
      author?: { name: string };
    }[];
  const rows = (on = page) => on.locator('.rows a');
  const namesInList = async (on = page) => await on.locator('.rows .name').allTextContents();

  /** The findings of axe, for WCAG 2.2 A and AA. */
  async function findings(on: Page): Promise<string[]> {
    // As the browser's own tools would: the page's policy allows no script but its own.
    const session = await on.context().newCDPSession(on);
    await session.send('Runtime.evaluate', { expression: AXE });
    const { result } = await session.send('Runtime.evaluate', {
      expression: `axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] }).then(({ violations }) =>
        violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html }) => html).join(' ')))`,
      awaitPromise: true,
      returnByValue: true,
    });
    return result.value as string[];
  }

  test('a link signs in once and leaves no trace in the address; signing out ends it', async () => {
    const keyId = (await api.backend.database.selectFrom('keep.api_keys').select('id').executeTakeFirstOrThrow()).id;
    const link = await api.app.get(ConsoleSessions).makeLink({ organizationId: api.organizationId, keyId });
    await page.goto(`${api.url}/console#sign-in=${link}`);
    await page.getByText('Live', { exact: true }).waitFor();
    expect(page.url()).not.toContain('sign-in');
    expect(await page.evaluate('JSON.stringify(localStorage) + document.cookie')).not.toMatch(/tl_|session/);
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('API key').waitFor();
    await page.reload();
    await page.getByLabel('API key').fill(api.adminKey);
    await page.keyboard.press('Enter');
    await page.getByText('Live', { exact: true }).waitFor();
    // Asking who is signed in, without a session, is answered 401, which Chromium reports.
    faults = faults.filter((fault) => !fault.includes('401'));
  });

  test('a conversation is answered from the keyboard alone, and a note and a status too', async () => {
    const first = await conversation('The first');
    const { id, name } = await conversation('The second');
    await signIn(page, await asAda());
    await page.getByText(name).waitFor();
    const before = await requestsWhile(async () => {
      for (const key of ['j', 'j', 'k']) await page.keyboard.press(key);
      await eventually(async () => (await page.evaluate<string>('document.activeElement.textContent')).includes(name));
    });
    // The cursor asks the server nothing.
    expect(before).toEqual([]);
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name }).waitFor();
    await page.keyboard.press('r');
    await page.keyboard.type('It is on its way.\nNumber r/j/k/e');
    await page.keyboard.press('Control+Enter');
    await page.locator('.message:not(.is-pending)', { hasText: 'on its way' }).waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('n');
    await page.keyboard.type('Asked the carrier.');
    await page.keyboard.press('Control+Enter');
    await page.locator('.message.is-note:not(.is-pending)', { hasText: 'Asked the carrier.' }).waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('e');
    await page.locator('.rows a[aria-current] .status', { hasText: 'resolved' }).waitFor();
    await eventually(async () => (await api.expect(200, 'GET', `/conversations/${id}`)).body.data.status === 'resolved');
    expect((await messagesOf(id)).map(({ type, content, author }) => [type, content, author?.name])).toEqual([
      ['visitor', 'The second', undefined],
      ['agent', 'It is on its way.\nNumber r/j/k/e', 'Ada Ortiz'],
      ['note', 'Asked the carrier.', 'Ada Ortiz'],
    ]);
    expect(await messagesOf(first.id)).toHaveLength(1);
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('Escape');
    expect(new URL(page.url()).pathname).toBe('/console/support');
  });

  test('letters that are typed before the composer is there are kept for it, and do nothing else', async () => {
    const { id, name } = await conversation();
    await signIn(page, await asAda());
    await page.getByText(name).waitFor();
    await page.keyboard.press('j');
    await page.keyboard.type('reeejon');
    await eventually(async () => (await page.getByRole('textbox').inputValue()) === 'eeejon');
    expect((await api.expect(200, 'GET', `/conversations/${id}`)).body.data.status).toBe('open');
  });

  async function requestsWhile(act: () => Promise<void>): Promise<string[]> {
    const asked: string[] = [];
    const hear = (request: { url(): string }) => asked.push(request.url());
    page.on('request', hear);
    await act();
    page.off('request', hear);
    return asked;
  }

  test('what a visitor or a colleague writes appears by itself, in the list and in the conversation, once', async () => {
    const { id, name } = await conversation();
    await signIn(page, await asAda(), `/console/support/conversations/${id}`);
    await page.locator('.message', { hasText: 'parcel' }).waitFor();
    await visitorSays(id, 'Hello? Anybody?');
    await page.locator('.message', { hasText: 'Anybody' }).waitFor();
    await page.locator('.rows a', { hasText: 'Anybody' }).waitFor();
    const colleague = await newPage();
    await signIn(colleague.page, api.adminKey, `/console/support/conversations/${id}`);
    await colleague.page.getByRole('textbox').fill('I am looking.');
    await colleague.page.keyboard.press('Control+Enter');
    await page.locator('.message.is-agent', { hasText: 'I am looking.' }).waitFor();
    expect(await colleague.page.locator('.message.is-agent').count()).toBe(1);
    expect((await namesInList())[0]).toBe(name);
    await colleague.context.close();
  });

  test('a reply does not cross a message that its writer has not seen', async () => {
    const { id } = await conversation();
    await signIn(page, await asAda(), `/console/support/conversations/${id}`);
    await page.getByRole('textbox').fill('It was sent on Monday.');
    // What changes without a word is no reason to ask.
    await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['parcel'] } });
    await page.getByText('parcel', { exact: true }).waitFor();
    await visitorSays(id, 'It has just come, thank you!');
    await page.locator('.meanwhile', { hasText: 'It has just come' }).waitFor();
    await page.getByRole('textbox').press('Control+Enter');
    await page.getByText('Not sent: somebody wrote while you did.').waitFor();
    expect(await page.getByRole('textbox').inputValue()).toBe('It was sent on Monday.');
    expect(await messagesOf(id)).toHaveLength(2);
    await page.getByRole('button', { name: 'Send it anyway' }).click();
    await page.locator('.message.is-agent:not(.is-pending)').waitFor();
    expect((await messagesOf(id)).map(({ content }) => content)).toEqual([
      'Where is my parcel?',
      'It has just come, thank you!',
      'It was sent on Monday.',
    ]);
    // The refusal of a stale If-Match is an answer, which Chromium reports.
    faults = faults.filter((fault) => !fault.includes('412'));
  });

  test('the list stands still while somebody points at it or goes through it', async () => {
    const made = [await conversation(), await conversation(), await conversation()];
    const [oldest] = made;
    await signIn(page, await asAda());
    await page.getByText(made[2]!.name).waitFor();
    await page.mouse.move(5, 700);
    const before = await namesInList();
    await rows().first().hover();
    await visitorSays(oldest!.id, 'I am first now');
    await page.getByRole('button', { name: /moved/ }).waitFor();
    await page.locator('.rows a', { hasText: 'I am first now' }).waitFor();
    expect(await namesInList()).toEqual(before);
    await page.mouse.move(5, 700);
    await eventually(async () => (await namesInList())[0] === oldest!.name);
    await page.keyboard.press('j');
    await visitorSays(made[1]!.id, 'And now me');
    await page.getByRole('button', { name: /moved/ }).waitFor();
    expect((await namesInList())[0]).toBe(oldest!.name);
    await page.keyboard.press('u');
    await eventually(async () => (await namesInList())[0] === made[1]!.name);
  });

  test('a cut of the network loses nothing: the feed goes on, and what was written is sent once', async () => {
    const { id } = await conversation();
    // Chromium's own "offline" leaves open sockets alone.
    const sockets = new Set<WebSocketRoute>();
    let isCut = false;
    await page.routeWebSocket('**/support/conversations/live*', (socket) => {
      if (isCut) return void socket.close();
      sockets.add(socket);
      socket.connectToServer();
    });
    await signIn(page, await asAda(), `/console/support/conversations/${id}`);
    await page.getByRole('textbox').fill('Written before the cut.');
    isCut = true;
    await Promise.all([context.setOffline(true), ...[...sockets].map((socket) => socket.close())]);
    await page.getByText('Not connected').waitFor();
    await page.getByRole('textbox').press('Control+Enter');
    await page.locator('.message.is-pending', { hasText: 'Written before' }).waitFor();
    const other = await conversation('Meanwhile', 'Somebody new');
    isCut = false;
    await context.setOffline(false);
    await page.locator('.message:not(.is-pending)', { hasText: 'Written before' }).waitFor();
    await page.locator('.rows a', { hasText: other.name }).waitFor();
    expect((await messagesOf(id)).map(({ content }) => content)).toEqual(['Where is my parcel?', 'Written before the cut.']);
    faults = faults.filter((fault) => !/ERR_INTERNET_DISCONNECTED|ERR_NAME_NOT_RESOLVED|WebSocket/.test(fault));
  });

  test('what was not sent yet when the page goes is a draft when it comes back', async () => {
    const { id, name } = await conversation();
    await signIn(page, await asAda(), `/console/support/conversations/${id}`);
    await page.route('**/reply', (route) => route.abort());
    await page.getByRole('textbox').fill('Nobody has heard this.');
    await page.getByRole('textbox').press('Control+Enter');
    await page.locator('.message.is-pending').waitFor();
    expect(await page.getByRole('textbox').inputValue()).toBe('');
    await page.reload();
    await page.getByRole('heading', { name }).waitFor();
    expect(await page.getByRole('textbox').inputValue()).toBe('Nobody has heard this.');
    faults = faults.filter((fault) => !fault.includes('ERR_FAILED'));
  });

  test('a key that is revoked ends the session, and what was written is there after signing in again', async () => {
    const { id, name } = await conversation();
    const made = (await api.expect(201, 'POST', '/api-keys', { body: { name: 'short', role: 'agent', agentId: 'ada' } })).body.data;
    await signIn(page, made.key, `/console/support/conversations/${id}`);
    await page.getByRole('textbox').fill('Almost sent.');
    await api.expect(204, 'DELETE', `/api-keys/${made.id}`);
    await page.getByRole('textbox').press('Control+Enter');
    await page.getByText('The session is over. What you wrote is kept.').waitFor();
    await page.getByLabel('API key').fill(await asAda());
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name }).waitFor();
    // The session may have lasted for the second that it had.
    const said = (await messagesOf(id)).length === 2 ? '' : 'Almost sent.';
    await eventually(async () => (await page.getByRole('textbox').inputValue()) === said);
    faults = faults.filter((fault) => !fault.includes('401'));
  });

  test('a draft survives another conversation and a reload', async () => {
    const [one, two] = [await conversation(), await conversation()];
    await signIn(page, await asAda(), `/console/support/conversations/${one.id}`);
    await page.getByRole('textbox').fill('Half a sent');
    await page.locator('.rows a', { hasText: two.name }).click();
    await page.getByRole('heading', { name: two.name }).waitFor();
    expect(await page.getByRole('textbox').inputValue()).toBe('');
    await page.goBack();
    await page.getByRole('heading', { name: one.name }).waitFor();
    expect(await page.getByRole('textbox').inputValue()).toBe('Half a sent');
    await page.reload();
    await page.getByRole('heading', { name: one.name }).waitFor();
    expect(await page.getByRole('textbox').inputValue()).toBe('Half a sent');
  });

  test('hostile text stays text', async () => {
    const { id } = await conversation(HOSTILE, '<b onclick=alert(1)>Eve</b>‮');
    await visitorSays(id, 'x'.repeat(50_000));
    const card = { type: 'card', content: { title: '<i>T</i>', actions: [{ label: '<u>L</u>', url: 'https://elsewhere.example/' }] } };
    await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: card } });
    await signIn(page, await asAda(), `/console/support/conversations/${id}`);
    await page.locator('.message', { hasText: 'onerror' }).waitFor();
    expect(await page.locator('.message .text').first().textContent()).toBe(HOSTILE);
    expect(await page.locator('.messages :is(img, script, svg, i, u, b), .rows :is(img, script, svg, b)').count()).toBe(0);
    expect(await page.locator('.card a').getAttribute('rel')).toBe('noopener noreferrer');
    expect(await page.title()).not.toContain('broken');
    expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true);
  });

  test('a role is shown what it may see: an auditor cannot write, an analyst sees no content', async () => {
    const { id } = await conversation('Secret words');
    const textFor = async (role: Role) => {
      const opened = await newPage();
      await signIn(opened.page, await api.keyFor(role), `/console/support/conversations/${id}`);
      await opened.page.locator('.message').waitFor();
      const shown = await opened.page.evaluate('document.documentElement.outerHTML');
      const fields = await opened.page.getByRole('textbox').count();
      await opened.context.close();
      return { shown, fields };
    };
    expect(await textFor('auditor')).toEqual({ shown: expect.stringContaining('Secret words') as string, fields: 0 });
    expect(await textFor('analyst')).toEqual({ shown: expect.not.stringContaining('Secret words') as string, fields: 0 });
  });

  test('another organization’s conversation is not there', async () => {
    const other = await api.otherOrganization();
    const { body } = await api.expect(201, 'POST', '/conversations', {
      key: other.adminKey,
      body: { visitor: { name: 'Theirs' }, message: 'Ours alone' },
    });
    await signIn(page, await asAda(), `/console/support/conversations/${body.data.id}`);
    await page.getByText('There is no such conversation.').waitFor();
    expect(await page.content()).not.toContain('Theirs');
    faults = faults.filter((fault) => !fault.includes('404'));
  });

  test.each([
    ['light', 1_280],
    ['dark', 1_280],
    ['light', 320],
    ['dark', 320],
  ] as const)('axe finds nothing, %s at %i px, in the list, a conversation, the keys and signing in', async (colorScheme, width) => {
    const { id, name } = await conversation(HOSTILE);
    await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'An answer' } });
    await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { type: 'note', message: 'A note' } });
    await api.expect(200, 'PUT', `/conversations/${id}`, {
      body: { priority: 'urgent', subject: 'A rather long subject of a conversation' },
    });
    const opened = await newPage({ colorScheme, viewport: { width, height: 740 } });
    await opened.page.goto(`${api.url}/console`);
    await opened.page.getByLabel('API key').waitFor();
    expect(await findings(opened.page)).toEqual([]);
    await signIn(opened.page, api.adminKey);
    await opened.page.locator('.rows a', { hasText: name }).waitFor();
    expect(await findings(opened.page)).toEqual([]);
    await opened.page.locator('.rows a', { hasText: name }).click();
    await opened.page.locator('.message.is-note').waitFor();
    expect(await findings(opened.page)).toEqual([]);
    expect(await opened.page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width);
    // The end of the conversation is in sight.
    const end = async () => await opened.page.locator('.messages').evaluate((one) => one.scrollHeight - one.scrollTop - one.clientHeight);
    await eventually(async () => (await end()) <= 1);
    await opened.page.screenshot({ path: join(PICTURES, `${colorScheme}-${width}.png`) });
    await opened.page.keyboard.press('?');
    await opened.page.getByRole('dialog', { name: 'Keys' }).waitFor();
    expect(await findings(opened.page)).toEqual([]);
    await opened.context.close();
    faults = faults.filter((fault) => !fault.includes('401'));
  });

  test('a long list makes few rows', async () => {
    for (let made = 0; made < 120; made += 1) await conversation('One of many');
    await signIn(page, await asAda());
    await rows().first().waitFor();
    expect(await rows().count()).toBeLessThanOrEqual(60);
    const all = async () => Number(await page.locator('.rows li').first().getAttribute('aria-setsize'));
    await page.locator('.rows').evaluate((element) => (element.scrollTop = element.scrollHeight));
    await eventually(async () => (await all()) >= 120);
    expect(await rows().count()).toBeLessThanOrEqual(60);
  });
});
