import { readFileSync } from 'node:fs';
import { CODECS } from '../../src/event-decoding.js';
import { apiKeyAggregate } from '../../src/api-keys/api-key.js';
import { cannedResponseAggregate } from '../../src/canned-responses/canned-response.js';
import { claimAggregate } from '../../src/commands/claim.js';
import { companyAggregate } from '../../src/companies/company.js';
import { type Aggregate, decode, type DomainEvent, metadataOf, type Recorded } from '../../src/event-store/aggregate.js';
import { parseStreamName, type Position, type StoredEvent, type StreamKind, type StreamName } from '../../src/event-store/event-store.js';
import { CHAIN_START, verifyLink } from '../../src/event-store/hash-chain.js';
import { headAggregate } from '../../src/event-store/log-head.js';
import { inboxAggregate } from '../../src/inboxes/inbox.js';
import { organizationAggregate } from '../../src/organizations/organization.js';
import { DataKey } from '../../src/security/sealing.js';
import { assigneeAggregate } from '../../src/team/assignee.js';
import { viewAggregate } from '../../src/views/view.js';
import { type Visitor, visitorAggregate, type VisitorEvent } from '../../src/visitors/visitor.js';
import { unsealVisitor, unsealVisitorEvent } from '../../src/visitors/visitor.sealing.js';

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

const AGGREGATES = Object.fromEntries(
  [
    apiKeyAggregate,
    assigneeAggregate,
    cannedResponseAggregate,
    claimAggregate,
    companyAggregate,
    headAggregate,
    inboxAggregate,
    organizationAggregate,
    viewAggregate,
    visitorAggregate,
  ].map((aggregate) => [aggregate.kind, aggregate as unknown as Aggregate<object, DomainEvent>]),
);
const aggregateOf = (stream: StreamName): Aggregate<object, DomainEvent> => {
  const found = AGGREGATES[parseStreamName(stream)?.kind ?? ''];
  if (found === undefined) throw new Error(`no aggregate has streams such as ${stream}`);
  return found;
};
const storedIn = ({ stream, events }: Golden) => events.map(({ stored }): StoredEvent => ({ ...stored, stream, position: '' as Position }));
const keyOf = ({ visitorKey }: Golden) => (visitorKey === undefined ? undefined : new DataKey(Buffer.from(visitorKey, 'base64')));

test('every type and version of every kind of stream has a stored example', () => {
  const examples = new Set(streams.flatMap(storedIn).map((event) => `${event.type} v${metadataOf(event).schemaVersion}`));
  const known = Object.entries(CODECS)
    .filter(([kind]) => (kind as StreamKind) !== 'conversation')
    .flatMap(([, codec]) => Object.entries(codec.versions))
    .flatMap(([type, versions]) => Array.from({ length: versions }, (_, version) => `${type} v${version + 1}`));
  expect(known.length).toBeGreaterThan(20);
  expect(known.filter((one) => !examples.has(one))).toEqual([]);
});

describe.each(streams.map((golden) => [golden.stream, golden] as const))('%s', (stream, golden) => {
  const { codec, evolve, initial } = aggregateOf(stream);
  const key = keyOf(golden);

  test.each(golden.events.map(({ stored: { revision, type }, reads }) => [revision, type, reads] as const))(
    'revision %i, %s, reads as it always did',
    (revision, _, reads) => {
      const event = decode(codec, storedIn(golden)[revision] as StoredEvent);
      expect((key === undefined ? event : unsealVisitorEvent(event as Recorded<VisitorEvent>, key)).data).toEqual(reads);
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
