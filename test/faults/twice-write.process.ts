// The other process of twice-write.spec.ts: `twice-write.process.ts '<options of openHunter as JSON>'`. It takes one command per line, as
// `{"number", "command"}`, carries each out until it is answered, and tells `{"number", "answer"}` or `{"number", "error"}`. It ends with its input.
import { createInterface } from 'node:readline';
import { openHunter, type HuntCommand } from './twice-write.hunter.js';

const hunter = await openHunter(JSON.parse(process.argv[2] ?? '{}') as Parameters<typeof openHunter>[0]);
const tell = (fact: object) => void process.stdout.write(`${JSON.stringify(fact)}\n`);
const running = new Set<Promise<void>>();
tell({ ready: true });
for await (const line of createInterface(process.stdin)) {
  const { number, command } = JSON.parse(line) as { number: number; command: HuntCommand };
  const done = hunter
    .untilAnswered(command)
    .then(
      (answer) => tell({ number, answer }),
      (error: unknown) => tell({ number, error: String(error) }),
    )
    .finally(() => running.delete(done));
  running.add(done);
}
await Promise.all(running);
await hunter.close();
