import type { Type } from '@nestjs/common';
import type { z } from 'zod';
import type { JsonSchema } from '../http/request-schema.js';
import type { CallerRole } from '../security/roles.js';
import { Schemas, VERSION } from './openapi.js';

const CHANNEL = 'threadlog:channel';

/** A message of a channel. Messages of several channels that share a name are one and the same. */
export interface ChannelMessage {
  readonly name: string;
  readonly summary: string;
  readonly payload: z.ZodType;
  /** Who may send it, for what clients send; all who may use the channel when absent. */
  readonly roles?: readonly CallerRole[];
}

/** What travels over an address. */
export interface Channel {
  /** Names the channel in the document. */
  readonly name: string;
  /** A path of this server; null for an address that the receiver chooses. */
  readonly address: string | null;
  readonly title: string;
  readonly description: string;
  readonly sent: readonly ChannelMessage[];
  readonly received: readonly ChannelMessage[];
  /** The query of the address, by name. */
  readonly query?: Readonly<Record<string, JsonSchema>>;
}

/** Declares what a provider sends and receives beside requests and answers: the AsyncAPI document is made of these. */
export const Speaks =
  (channel: Channel): ClassDecorator =>
  (target) =>
    Reflect.defineMetadata(CHANNEL, channel, target);

/** An AsyncAPI 3 document. */
export type AsyncApiDocument = JsonSchema & { readonly channels: Readonly<Record<string, JsonSchema>> };

/**
 * What the server sends and receives beside requests and answers, as an AsyncAPI 3.0 document.
 * @param providers classes, of which those count that declare a channel
 */
export function asyncApiDocument(providers: readonly Type[]): AsyncApiDocument {
  const schemas = new Schemas('draft-7');
  const messages: Record<string, JsonSchema> = {};
  const channels: Record<string, JsonSchema> = {};
  const operations: Record<string, JsonSchema> = {};
  for (const provider of providers) {
    const channel = Reflect.getMetadata(CHANNEL, provider) as Channel | undefined;
    if (channel === undefined) continue;
    const { name: own, address, title, description, sent, received, query } = channel;
    for (const { name, summary, payload, roles } of [...sent, ...received]) {
      const made = { name, summary, ...(roles === undefined ? {} : { 'x-roles': roles }), payload: schemas.ofAnswer(payload) };
      if (messages[name] !== undefined && JSON.stringify(messages[name]) !== JSON.stringify(made))
        throw new Error(`two messages have the name ${name}`);
      messages[name] = made;
    }
    channels[own] = {
      address,
      title,
      description,
      messages: Object.fromEntries([...sent, ...received].map(({ name }) => [name, { $ref: `#/components/messages/${name}` }])),
      ...(query === undefined
        ? {}
        : { bindings: { ws: { method: 'GET', query: { type: 'object', properties: query }, bindingVersion: '0.1.0' } } }),
    };
    const operation = (action: 'send' | 'receive', those: readonly ChannelMessage[]) => {
      if (those.length === 0) return;
      operations[`${own}.${action}`] = {
        action,
        channel: { $ref: `#/channels/${own}` },
        messages: those.map(({ name }) => ({ $ref: `#/channels/${own}/messages/${name}` })),
      };
    };
    operation('send', sent);
    operation('receive', received);
  }
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Threadlog',
      version: VERSION,
      description: 'What Threadlog sends and receives beside the requests and answers of its API, which /api/docs.json describes.',
    },
    defaultContentType: 'application/json',
    channels,
    operations,
    components: { messages, schemas: schemas.all() },
  };
}
