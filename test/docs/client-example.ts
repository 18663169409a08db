import { client } from './threadlog/client.gen.js';
import { type Conversation, conversationsGet, conversationsOpen, conversationsReply } from './threadlog/index.js';

client.setConfig({ baseUrl: process.env.THREADLOG_URL ?? 'http://127.0.0.1:3000', headers: { 'X-API-Key': process.env.THREADLOG_KEY } });

/** Opens a conversation for a visitor, greets it once however often this runs, and answers it with its messages. */
export async function welcome(userId: string): Promise<Conversation> {
  const headers = { 'Idempotency-Key': `welcome-${userId}` };
  const opened = await conversationsOpen({ body: { visitor: { userId }, message: 'Is anybody there?' }, headers, throwOnError: true });
  const { id } = opened.data.data;
  const { error } = await conversationsReply({ path: { id }, body: { message: 'Yes, hello!' }, headers });
  if (error?.code === 'conversation_closed') throw new Error(`too late: ${error.detail ?? error.title}`);
  if (error !== undefined) throw new Error(`${error.status} ${error.code}, request ${error.requestId}`);
  return (await conversationsGet({ path: { id }, throwOnError: true })).data.data;
}
