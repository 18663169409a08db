// A process of writers for postgres-order.spec.ts: `order-writers.ts <url> <name> <writers>`. It writes until its input ends, says "ready"
// after the first round, and then prints what was acknowledged as one line of JSON: [id, position][].
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { streamName } from '../../src/event-store/event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';

const [url = '', name = '', writers = '8'] = process.argv.slice(2);
const store = await openPostgresEventStore({ url, applicationName: `order-writers-${name}` });
const acknowledged: [string, string][] = [];
let writing = true;

const work = Array.from({ length: Number(writers) }, async (_, writer) => {
  for (let stream = 0; writing; stream += 1) {
    const streamOfWriter = streamName('conversation', 'order', `${name}.${writer}.${stream}`);
    for (let revision = -1; writing && revision < 20;) {
      const events = Array.from({ length: 1 + (acknowledged.length % 3) }, () => ({
        id: randomUUID(),
        type: 'Written',
        data: '{}',
        metadata: '{}',
      }));
      const answer = await store.append(streamOfWriter, revision < 0 ? 'none' : revision, events, AbortSignal.timeout(20_000));
      if (answer.outcome !== 'appended') throw new Error(`a conflict on a stream of its own: ${streamOfWriter}`);
      revision = answer.revision;
      acknowledged.push([events.at(-1)!.id, answer.position]);
      if (acknowledged.length === Number(writers)) process.stdout.write('ready\n');
    }
  }
});

process.stdin.resume();
await once(process.stdin, 'end');
writing = false;
await Promise.all(work);
await store.close();
process.stdout.write(`${JSON.stringify(acknowledged)}\n`);
