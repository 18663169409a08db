import { Inject, Injectable } from '@nestjs/common';
import { CommandBus, QueryBus } from '@nestjs/cqrs';
import type { FastifyRequest } from 'fastify';
import type { Principal } from '../security/api-key-lookup.js';
import type { CommandContext } from '../commands/command-context.js';
import { ThreadlogError } from '../errors.js';
import { Answered, dataAnswer } from '../http/answered.js';
import { commandContext } from '../http/request-context.js';
import { ConversationReader } from './conversation.reader.js';
import type { PageMeta } from '../read-models/paging.js';
import { ListOwnConversations, OWN_SORTS } from './visitor-conversation.list.js';
import { type ConversationChanged, OpenConversation, RateConversation, ReceiveMessage } from './conversation.commands.js';
import { SHOWN_STATUSES } from './conversation.js';
import type { MessageInput } from './conversation.sealing.js';
import type { ListQueryDto } from './list-query.dto.js';
import type { VisitorConversationAnswer, VisitorConversationSummary, VisitorMessageAnswer } from './visitor-conversation.answer.js';

/** The holder of a visitor token. */
export type VisitorPrincipal = Principal & { readonly visitorId: string };

/** The body of POST /conversations, as far as a visitor may set it. */
export interface VisitorOpening {
  readonly visitor?: { readonly id?: string | null } | null;
  readonly inboxId?: string;
  readonly message: MessageInput;
  readonly subject?: string;
  readonly previousConversationId?: string;
}

const OPENING = ['visitor', 'inboxId', 'message', 'subject', 'previousConversationId', 'as'];
const LISTING = ['status', 'sort', 'order', 'page', 'limit', 'cursor', 'total'];

/**
 * How the routes of conversations answer a visitor token: only with the visitor's own conversations, in the shapes of
 * visitor-conversation.answer.ts. Another visitor's conversation is answered as if it did not exist. Reads return no position, and that
 * of a write is sealed on its way out (CallerPositions).
 */
@Injectable()
export class VisitorConversations {
  constructor(
    private readonly commands: CommandBus,
    private readonly queries: QueryBus,
    @Inject(ConversationReader) private readonly reader: ConversationReader,
  ) {}

  async open(
    request: FastifyRequest,
    { organizationId, visitorId }: VisitorPrincipal,
    body: VisitorOpening,
  ): Promise<Answered<{ data: VisitorConversationAnswer }>> {
    const { visitor, message, inboxId, subject, previousConversationId } = body;
    refuse(body, OPENING);
    if ((body as { as?: string }).as === 'agent') throw notForVisitors(['as']);
    // Whoever mints the token sets the visitor's fields: a visitor who chose an e-mail address would be found by it in place of its owner.
    refuse(visitor ?? {}, ['id'], 'visitor.');
    if (typeof visitor?.id === 'string' && visitor.id !== visitorId)
      throw new ThreadlogError('forbidden', 'a visitor token opens conversations for its own visitor');
    const changed = await this.commands.execute(
      new OpenConversation(commandContext(request), '', {
        visitor: { id: visitorId },
        message,
        channel: 'widget',
        as: 'visitor',
        ...(inboxId === undefined ? {} : { inboxId }),
        ...(subject === undefined ? {} : { subject }),
        ...(previousConversationId === undefined ? {} : { previousConversationId }),
      }),
    );
    const messages = [await this.reader.visitorMessage(organizationId, changed, message)];
    const { lastMessage: _lastMessage, ...summary } = await this.reader.visitorSummary(organizationId, changed);
    return dataAnswer(shown(changed), { ...summary, messages }, { location: `/api/support/conversations/${changed.id}` });
  }

  async list(
    { organizationId, visitorId }: VisitorPrincipal,
    query: ListQueryDto,
  ): Promise<{ data: VisitorConversationSummary[]; meta: PageMeta }> {
    refuse(query, LISTING);
    const by = oneOf(OWN_SORTS, 'sort', query.sort ?? 'updatedAt');
    const status = query.status?.map((one) => oneOf(SHOWN_STATUSES, 'status', one));
    return this.queries.execute(
      new ListOwnConversations(organizationId, visitorId, status, { by, order: query.order ?? 'desc' }, query.paging()),
    );
  }

  async get(
    { organizationId, visitorId }: VisitorPrincipal,
    id: string,
    query: object,
  ): Promise<Answered<{ data: VisitorConversationAnswer }>> {
    refuse(query, []);
    const found = await this.reader.visitorConversation(organizationId, id, visitorId);
    if (found === undefined) throw new ThreadlogError('not_found');
    return new Answered({ data: found }, { revision: found.revision });
  }

  async receive(context: CommandContext, id: string, message: MessageInput): Promise<Answered<{ data: VisitorMessageAnswer }>> {
    const changed = await this.commands.execute(new ReceiveMessage(context, id, message));
    return dataAnswer(shown(changed), await this.reader.visitorMessage(context.organizationId, changed, message));
  }

  async messages(
    { organizationId, visitorId }: VisitorPrincipal,
    id: string,
    before: string | undefined,
    limit: number,
  ): Promise<{ data: VisitorMessageAnswer[]; meta: { limit: number; hasMore: boolean } }> {
    const found = await this.reader.visitorMessagesBefore(organizationId, id, visitorId, before, limit);
    if (found === undefined) throw new ThreadlogError('not_found');
    return { data: found.messages, meta: { limit, hasMore: found.hasMore } };
  }

  async rate(
    context: CommandContext,
    id: string,
    rating: number,
    comment: string | null | undefined,
  ): Promise<Answered<{ data: VisitorConversationSummary }>> {
    const changed = await this.commands.execute(new RateConversation(context, id, rating, comment));
    return dataAnswer(shown(changed), await this.reader.visitorSummary(context.organizationId, changed));
  }
}

/** The revision and the position that a visitor may see. */
const shown = ({ state, position }: ConversationChanged) => ({ revision: state.shown.revision, position });

const notForVisitors = (fields: readonly string[]) =>
  new ThreadlogError('validation_failed', undefined, { errors: fields.map((field) => ({ field, message: 'is not for visitors' })) });

/** @throws ThreadlogError validation_failed that names every given field that is not among these */
function refuse(given: object, fields: readonly string[], path = ''): void {
  const others = Object.entries(given).flatMap(([name, value]) => (value === undefined || fields.includes(name) ? [] : [`${path}${name}`]));
  if (others.length > 0) throw notForVisitors(others);
}

/** @throws ThreadlogError validation_failed */
function oneOf<T extends string>(values: readonly T[], field: string, given: string): T {
  const found = values.find((value) => value === given);
  if (found === undefined)
    throw new ThreadlogError('validation_failed', undefined, { errors: [{ field, message: `must be one of ${values.join(', ')}` }] });
  return found;
}
