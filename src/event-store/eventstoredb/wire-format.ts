import { randomUUID } from 'node:crypto';
import shared from '@eventstore/db-client/generated/shared_pb.js';
import type { StreamsClient } from '@eventstore/db-client/generated/streams_grpc_pb.js';
import type { ReadReq, ReadResp } from '@eventstore/db-client/generated/streams_pb.js';
import streams from '@eventstore/db-client/generated/streams_pb.js';
import type { Expected, NewEvent, Position, StoredEvent, StreamName } from '../event-store.js';

/*
 * The wire format of the port. The client's readStream and appendToStream are not used: they parse metadata and print it again (1.0 comes
 * back as 1), cannot filter a read of $all, and share one promise table between all clients of a process. The messages below are the
 * client's generated ones, sent over its own connection, so that bytes go in and come out unchanged.
 */

/** The prefix of every stream of Threadlog; all other streams in the same EventStoreDB are foreign. */
const PREFIX = 'threadlog.';

/** Holds the single event whose data names the log. It lacks the prefix, so that no feed delivers it. */
export const IDENTITY_STREAM = 'threadlog-log';

export type ReadCall = ReturnType<StreamsClient['read']>;
export type RecordedEvent = ReadResp.ReadEvent.RecordedEvent;

export const serverStreamName = (stream: StreamName): string => PREFIX + stream;

const SEARCH_WINDOW = 1_024;
const DIGITS = 19;
const LARGEST = '9223372036854775807';

/** A position before every event of any log, since EventStoreDB's first record is its own. */
export const ORIGIN = toPosition('0', '0') as Position;

/**
 * `<commit>-<prepare>`, both as 19 digits. Undefined for a position that no log can hold: some servers report 2^64-1 as a checkpoint, and a
 * feed that stored it would never see another event.
 */
export function toPosition(commit: string, prepare: string): Position | undefined {
  const text = `${commit.padStart(DIGITS, '0')}-${prepare.padStart(DIGITS, '0')}`;
  if (text.length !== DIGITS * 2 + 1 || text.slice(0, DIGITS) > LARGEST || text.slice(DIGITS + 1) > LARGEST) return undefined;
  return text as Position;
}

const POSITION = /^\d{19}-\d{19}$/;

/** @throws TypeError for a text that this adapter did not make, since following another log's position would skip or repeat events */
export function assertPosition(position: Position): void {
  if (!POSITION.test(position)) throw new TypeError('the position does not belong to an EventStoreDB log');
}

export function toStoredEvent(record: RecordedEvent): StoredEvent {
  const metadata = record.getMetadataMap();
  const position = toPosition(record.getCommitPosition(), record.getPreparePosition());
  // Servers before 22.6 leave the position out of stream reads. An event without a position would break every wait for it.
  if (position === undefined) throw new TypeError('the server sent an event without a position; EventStoreDB 23.10 or later is needed');
  return {
    id: idOf(record),
    type: metadata.get('type') ?? '',
    data: text(record.getData_asU8()),
    metadata: text(record.getCustomMetadata_asU8()),
    stream: text(record.getStreamIdentifier()?.getStreamName_asU8() ?? new Uint8Array()).slice(PREFIX.length) as StreamName,
    revision: Number(record.getStreamRevision()),
    position,
  };
}

function idOf(record: RecordedEvent): string {
  // Every read asks for ids as strings.
  return record.getId()?.getString().toLowerCase() ?? '';
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

export type ProposedEvents = readonly InstanceType<typeof streams.BatchAppendReq.ProposedMessage>[];

/** Makes an append's events for the wire, once per append, so that a resend carries the same bytes. */
export function proposeEvents(events: readonly NewEvent[]): ProposedEvents {
  return events.map((event) => {
    const message = new streams.BatchAppendReq.ProposedMessage();
    const id = new shared.UUID();
    id.setString(event.id);
    message.setId(id);
    // Marked as JSON so that the server's own tools show the data; neither side parses it.
    message.getMetadataMap().set('type', event.type).set('content-type', 'application/json');
    message.setData(Buffer.from(event.data, 'utf8'));
    message.setCustomMetadata(Buffer.from(event.metadata, 'utf8'));
    return message;
  });
}

/**
 * One append as one message (the port's limit is far below the 4 MiB at which a split would be necessary). The message has no deadline: the
 * client's deadline is a time of day, and if the two clocks differed, every append would time out.
 */
export function batchAppendRequest(stream: string, expected: Expected, events: ProposedEvents) {
  const correlation = randomUUID();
  const id = new shared.UUID();
  id.setString(correlation);
  const options = new streams.BatchAppendReq.Options();
  options.setStreamIdentifier(streamIdentifier(stream));
  if (expected === 'none') options.setNoStream(new shared.Empty());
  else options.setStreamPosition(String(expected));
  const request = new streams.BatchAppendReq();
  request.setCorrelationId(id);
  request.setOptions(options);
  request.setProposedMessagesList([...events]);
  request.setIsFinal(true);
  return { correlation, request };
}

export function streamReadRequest(stream: string, from: number | 'end', count: number, backwards: boolean): ReadReq {
  const of = new streams.ReadReq.Options.StreamOptions();
  of.setStreamIdentifier(streamIdentifier(stream));
  if (from === 'end') of.setEnd(new shared.Empty());
  else of.setRevision(String(from));
  const options = readOptions(backwards);
  options.setStream(of);
  options.setCount(String(count));
  options.setNoFilter(new shared.Empty());
  return request(options);
}

/** Reads the last `count` events of Threadlog, newest first; the server skips foreign events. */
export function lastEventsRequest(count: number): ReadReq {
  const all = new streams.ReadReq.Options.AllOptions();
  all.setEnd(new shared.Empty());
  const options = readOptions(true);
  options.setAll(all);
  options.setCount(String(count));
  options.setFilter(ownStreams());
  return request(options);
}

/** Subscribes to Threadlog's events after `after` (exclusive), and then to each new event. */
export function subscriptionRequest(after: Position): ReadReq {
  const all = new streams.ReadReq.Options.AllOptions();
  if (after === ORIGIN) all.setStart(new shared.Empty());
  else {
    const position = new streams.ReadReq.Options.Position();
    position.setCommitPosition(withoutPadding(after.slice(0, DIGITS)));
    position.setPreparePosition(withoutPadding(after.slice(DIGITS + 1)));
    all.setPosition(position);
  }
  const options = readOptions(false);
  options.setAll(all);
  options.setSubscription(new streams.ReadReq.Options.SubscriptionOptions());
  options.setFilter(ownStreams());
  return request(options);
}

const withoutPadding = (digits: string): string => digits.replace(/^0+(?=\d)/, '');

function ownStreams() {
  const prefix = new streams.ReadReq.Options.FilterOptions.Expression();
  prefix.setPrefixList([PREFIX]);
  const filter = new streams.ReadReq.Options.FilterOptions();
  filter.setStreamIdentifier(prefix);
  // The number of events that the server searches at once; its default of 32 makes catching up slower by a fifth.
  filter.setMax(SEARCH_WINDOW);
  // A checkpoint follows this many windows without an event of ours. From there a subscription through foreign events resumes after a drop.
  filter.setCheckpointintervalmultiplier(1);
  return filter;
}

function readOptions(backwards: boolean) {
  const options = new streams.ReadReq.Options();
  const ids = new streams.ReadReq.Options.UUIDOption();
  ids.setString(new shared.Empty());
  options.setUuidOption(ids);
  options.setReadDirection(backwards ? 1 : 0);
  options.setResolveLinks(false);
  return options;
}

function request(options: InstanceType<typeof streams.ReadReq.Options>): ReadReq {
  const request = new streams.ReadReq();
  request.setOptions(options);
  return request;
}

function streamIdentifier(stream: string) {
  const identifier = new shared.StreamIdentifier();
  identifier.setStreamName(Buffer.from(stream, 'utf8'));
  return identifier;
}
