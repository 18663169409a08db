import { readFileSync } from 'node:fs';
import { decode, metadataOf } from '../../src/event-store/aggregate.js';
import { parseStreamName, type Position, type StoredEvent, type StreamName } from '../../src/event-store/event-store.js';
import { CHAIN_START, verifyLink } from '../../src/event-store/hash-chain.js';
import { STREAMS } from '../../src/features.js';
import { DataKey } from '../../src/security/sealing.js';
import type { Visitor } from '../../src/visitors/visitor.js';
import { unsealVisitor } from '../../src/visitors/visitor.sealing.js';

/*
 * Streams of every kind but conversations (golden-events.spec.ts has those) as the log holds them since their first day, byte for byte, and
 * what they read as. A new type or version adds its example to golden-streams.json, and an example that is there is never edited.
 */
interface Golden {
  stream: StreamName;
  visitorKey?: string;
  events: { stored: Pick<StoredEvent, 'id' | 'type' | 'revision' | 'data' | 'metadata'>; reads: object }[];
  state: object;
}
const streams = JSON.parse(readFileSync(new URL('golden-streams.json', import.meta.url), 'utf8')) as Golden[];

const streamOf = (name: StreamName) => {
  const found = STREAMS.get(parseStreamName(name)?.kind ?? '');
  if (found === undefined) throw new Error(`no feature has streams such as ${name}`);
  return found;
};
const storedIn = ({ stream, events }: Golden) => events.map(({ stored }): StoredEvent => ({ ...stored, stream, position: '' as Position }));
const keyOf = ({ visitorKey }: Golden) => (visitorKey === undefined ? undefined : new DataKey(Buffer.from(visitorKey, 'base64')));

test('every type and version of every kind of stream has a stored example', () => {
  const examples = new Set(streams.flatMap(storedIn).map((event) => `${event.type} v${metadataOf(event).schemaVersion}`));
  const known = [...STREAMS]
    .filter(([kind]) => kind !== 'conversation')
    .flatMap(([, { aggregate }]) => Object.entries(aggregate.codec.versions))
    .flatMap(([type, versions]) => Array.from({ length: versions }, (_, version) => `${type} v${version + 1}`));
  expect(known.length).toBeGreaterThan(20);
  expect(known.filter((one) => !examples.has(one))).toEqual([]);
});

describe.each(streams.map((golden) => [golden.stream, golden] as const))('%s', (stream, golden) => {
  const {
    aggregate: { codec, evolve, initial },
    unseal = (event) => event,
  } = streamOf(stream);
  const key = keyOf(golden);

  test.each(golden.events.map(({ stored: { revision, type }, reads }) => [revision, type, reads] as const))(
    'revision %i, %s, reads as it always did',
    (revision, _, reads) => {
      const event = decode(codec, storedIn(golden)[revision] as StoredEvent);
      expect(unseal(event, key).data).toEqual(reads);
    },
  );

  test('they fold to the state that they always did', () => {
    const state = storedIn(golden)
      .map((event) => decode(codec, event))
      .reduce(evolve, initial);
    expect(key === undefined ? state : unsealVisitor(state as Visitor, key)).toEqual(golden.state);
  });

  test('the hash of each still follows from its bytes and the hash before', () => {
    let previous: string = CHAIN_START;
    for (const event of storedIn(golden)) {
      const hash = verifyLink(previous, event);
      expect(hash).toBe(metadataOf(event).hash);
      previous = hash ?? '';
    }
  });
});
