import { type Browser, chromium } from 'playwright-core';
import { findBrowser } from './find-browser.mjs';

const found = findBrowser();

/**
 * `describe` where there is a browser. Elsewhere the tests are skipped, and the run says so aloud; with CONSOLE_TESTS=required
 * they fail.
 */
export const describeInBrowser: jest.Describe =
  found === undefined && process.env['CONSOLE_TESTS'] !== 'required' ? describe.skip : describe;

/** A browser that reaches this machine and nothing else, so that a page that needs the internet fails. */
export async function launchBrowser(): Promise<Browser> {
  if (found === undefined) throw new Error('there is no Chromium (CHROMIUM names one)');
  return await chromium.launch({
    executablePath: found,
    args: ['--no-sandbox', '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1'],
  });
}
