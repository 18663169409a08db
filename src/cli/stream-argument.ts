import { parseStreamName, type StreamName } from '../event-store/event-store.js';
import { STREAMS } from '../features.js';
import { WrongUsage } from './command.js';

/** The name of a stream as the user typed it. @throws WrongUsage for a text without a kind of stream that this build knows */
export function streamArgument(text: string): StreamName {
  if (STREAMS.has(parseStreamName(text)?.kind ?? '')) return text as StreamName;
  const kinds = [...STREAMS.keys()].join(', ');
  throw new WrongUsage(`"${text}" is not the name of a stream, which is KIND-ORGANIZATION.ID; the kinds are ${kinds}`);
}
