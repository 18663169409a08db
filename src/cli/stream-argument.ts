import { parseStreamName, type StreamName } from '../event-store/event-store.js';
import { STREAMS } from '../features.js';
import { WrongUsage } from './command.js';

/** The name of a stream as it was typed. @throws WrongUsage for a text that names no kind of stream of this build */
export function streamArgument(text: string): StreamName {
  if (STREAMS.has(parseStreamName(text)?.kind ?? '')) return text as StreamName;
  const kinds = [...STREAMS.keys()].join(', ');
  throw new WrongUsage(`"${text}" is not the name of a stream, which is KIND-ORGANIZATION.ID; the kinds are ${kinds}`);
}
