// @ts-check
import { ensureBuilt } from './build.js';

try {
  await ensureBuilt();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}
// npm hands SIGINT and SIGTERM on to us, but SIGHUP ends it without a word.
if (process.env.npm_lifecycle_event === 'start' && process.env.npm_package_name === 'threadlog') {
  const npm = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === npm) return;
    clearInterval(watch);
    process.kill(process.pid, 'SIGHUP');
  }, 500).unref();
}
await import(new URL('../dist/src/main.js', import.meta.url).href);
