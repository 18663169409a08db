import { z } from 'zod';
import { PUBLIC_EVENTS } from '../conversations/public-event.js';
import { publicEventBodySchema, visitorEventBodySchema } from '../conversations/public-event.answer.js';
import type { Channel } from '../docs/asyncapi.js';
import { CLOSE_CODES } from './live-connection.js';
import { LIVE_TYPES, PRESENCE_TYPES } from './live-filter.js';
import { authMessageSchema, LIVE_MESSAGES, liveMessageSchema, type LiveMessageType } from './live-message.js';

/** The address of the feed, and the name of its namespace. */
export const LIVE_PATH = '/support/conversations/live';

const readySchema = z.strictObject({
  type: z.literal('ready'),
  position: z
    .string()
    .describe(
      'What is stored after it follows. A `since` to go on from until the first frame has come. For visitors another text each time.',
    ),
});
const errorSchema = z.strictObject({
  type: z.literal('error'),
  data: z.strictObject({ code: z.union([z.string(), z.number().int()]), reason: z.string() }),
});

/** A frame of the log. */
export const eventFrameSchema = (type: string) =>
  z.strictObject({
    type: z.literal(type),
    data: z.union([publicEventBodySchema, visitorEventBodySchema]).describe('The second form for visitors.'),
    position: z
      .string()
      .describe(
        'The position of this frame, to go on from by `since`. Positions compare as texts; for visitors they are sealed, and have no order.',
      ),
  });

const personSchema = z.strictObject({
  id: z.string().optional().describe('Absent for visitors.'),
  name: z.string().optional().describe('For visitors absent for a key that is bound to no agent.'),
});
export const presenceFrameSchema = (type: string) =>
  z.strictObject({
    type: z.literal(type),
    data: z.strictObject({ conversationId: z.string(), agents: z.array(personSchema).describe('All who are there now.') }),
  });

const list = { type: 'string', description: 'One value, or several with commas.' };

/** The live feed in the AsyncAPI document. */
export const LIVE_CHANNEL: Channel = {
  name: 'live',
  address: LIVE_PATH,
  title: 'The live feed',
  description: `A WebSocket, and a namespace of socket.io of the same name. docs/live.md describes the handshake and the guarantees. Close codes: ${Object.entries(
    CLOSE_CODES,
  )
    .map(([code, why]) => `${code}: ${why}`)
    .join('; ')}.`,
  query: {
    ticket: { type: 'string', description: 'From POST /api/support/live-tickets.' },
    since: { type: 'string', description: '`start`, or a position: everything after it is told first.' },
    inboxId: list,
    assigneeId: { ...list, description: `${list.description} \`none\` for nobody.` },
    conversationId: list,
    types: { ...list, description: `${list.description} Among ${LIVE_TYPES.join(', ')}.` },
  },
  sent: [
    { name: 'ready', summary: 'The first frame: the caller was let in.', payload: readySchema },
    ...PUBLIC_EVENTS.map((type) => ({ name: type, summary: 'A public event of a conversation.', payload: eventFrameSchema(type) })),
    ...PRESENCE_TYPES.map((type) => ({ name: type, summary: 'Who is there. Stored nowhere.', payload: presenceFrameSchema(type) })),
    {
      name: 'error',
      summary: 'Why a message was not followed; on socket.io also why the server disconnects, with a close code.',
      payload: errorSchema,
    },
  ],
  received: [
    { name: 'auth', summary: 'The first message, where the handshake had no key. It must come within 5 s.', payload: authMessageSchema },
    ...(Object.keys(LIVE_MESSAGES) as LiveMessageType[]).map((type) => ({
      name: type,
      summary: LIVE_MESSAGES[type].about,
      roles: LIVE_MESSAGES[type].roles,
      payload: liveMessageSchema.extend({ type: z.literal(type) }),
    })),
  ],
};
