import { existsSync } from 'node:fs';

/** Where Debian, Ubuntu and others put a Chromium. */
const PLACES = ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** A Chromium to test the console with: the one that CHROMIUM names, or one in its usual place; undefined where there is none. */
export const findBrowser = () => (process.env.CHROMIUM ? [process.env.CHROMIUM] : PLACES).find((path) => existsSync(path));
