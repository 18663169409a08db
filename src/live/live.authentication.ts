import type { IncomingMessage } from 'node:http';
import { Inject, Injectable } from '@nestjs/common';
import { CONFIG, type Config } from '../config.js';
import { ThreadlogError } from '../errors.js';
import { EVENT_STORE, type EventStore, type Position } from '../event-store/event-store.js';
import { parsePublicPosition } from '../conversations/public-event.js';
import { clientAddress } from '../http/client-address.js';
import { mayConnect } from '../http/origins.js';
import { type AnswerHeaders, RateLimits } from '../http/rate-limits.js';
import type { Principal } from '../security/api-key-lookup.js';
import { CallerPositions } from '../security/caller-positions.js';
import { Callers, keysIn } from '../security/callers.js';
import type { CallerRole } from '../security/roles.js';
import { AssigneeReader } from '../team/assignee.reader.js';
import { cursorOf, type LiveCursor } from './live-cursor.js';
import { type LiveFilter, parseFilter } from './live-filter.js';
import { LiveTickets } from './live-ticket.writer.js';

/** The subprotocol, and the prefix of the one that carries a key, for browsers, which cannot set headers. */
export const SUBPROTOCOL = 'threadlog';
const KEY_PROTOCOL = 'bearer.';

/** Who may follow the live feed. What each is told differs. */
export const FOLLOWING_ROLES: readonly CallerRole[] = ['admin', 'agent', 'auditor', 'analyst', 'visitor'];

/** Who is at the other end of a socket. */
export interface LiveCaller {
  readonly principal: Principal;
  /** Whose presence it tells of: the agent, or the key where there is none. Null for visitors. */
  readonly person: { readonly id: string; readonly name: string } | null;
  /** The agent that the key is bound to, or that an admin key acts for. */
  readonly agentId: string | null;
}

/** What a socket asked for. */
export interface LiveWish {
  readonly filter: LiveFilter;
  /** Undefined for what comes from now on. */
  readonly since: LiveCursor | undefined;
}

/** Knows who opens a socket, and what they may ask for. */
@Injectable()
export class LiveAuthentication {
  #head: Promise<Position | 'start'> | undefined;

  constructor(
    @Inject(Callers) private readonly callers: Callers,
    @Inject(LiveTickets) private readonly tickets: LiveTickets,
    @Inject(RateLimits) private readonly rateLimits: RateLimits,
    @Inject(AssigneeReader) private readonly assignees: AssigneeReader,
    @Inject(EVENT_STORE) private readonly store: EventStore,
    @Inject(CallerPositions) private readonly positions: CallerPositions,
    @Inject(CONFIG) private readonly config: Pick<Config, 'CORS_ORIGINS' | 'TRUST_PROXY'>,
  ) {}

  /** @throws ThreadlogError forbidden for a page of another origin than our own and those of CORS_ORIGINS; programs send none */
  assertOrigin(request: IncomingMessage): void {
    if (!mayConnect(request, this.config.CORS_ORIGINS))
      throw new ThreadlogError('forbidden', 'pages of this origin may not connect (CORS_ORIGINS)');
  }

  /** The client's address. */
  addressOf(request: IncomingMessage): string {
    return clientAddress(request, this.config.TRUST_PROXY);
  }

  /**
   * The caller, by the key in a header or in Sec-WebSocket-Protocol, or by a ticket. Undefined when there is none, so that the first message
   * must have it.
   * @throws ThreadlogError unauthenticated, also for more than one key; rate_limited, forbidden, unknown_agent, resource_archived
   */
  async ofHandshake(request: IncomingMessage, ticket: unknown, headers: AnswerHeaders): Promise<LiveCaller | undefined> {
    const [key, ...others] = [...keysIn(request), ...protocolsOf(request).flatMap((one) => keyOfProtocol(one) ?? [])];
    if (others.length > 0 || (key !== undefined && ticket !== undefined)) throw new ThreadlogError('unauthenticated', 'more than one key');
    if (ticket !== undefined) return await this.ofTicket(ticket, request, headers);
    return key === undefined ? undefined : await this.ofKey(key, request, headers);
  }

  /** The caller by a ticket, which is used up. @throws ThreadlogError as ofHandshake() */
  private async ofTicket(ticket: unknown, request: IncomingMessage, headers: AnswerHeaders): Promise<LiveCaller> {
    const found =
      typeof ticket === 'string'
        ? await this.rateLimits.authenticate(this.addressOf(request), headers, () => this.tickets.use(ticket))
        : undefined;
    if (found === undefined) throw new ThreadlogError('unauthenticated', 'no ticket, or one that was used or has expired');
    return await this.callerOf(found.principal, found.actingFor);
  }

  /** The caller by a key or a visitor token. @throws ThreadlogError as ofHandshake() */
  async ofKey(key: string, request: IncomingMessage, headers: AnswerHeaders): Promise<LiveCaller> {
    const principal = await this.callers.recognize(key, this.addressOf(request), headers);
    const acting = request.headers['x-agent-id'];
    return await this.callerOf(principal, typeof acting === 'string' ? acting : null);
  }

  private async callerOf(principal: Principal, actingFor: string | null): Promise<LiveCaller> {
    if (!FOLLOWING_ROLES.includes(principal.role)) throw new ThreadlogError('forbidden');
    if (actingFor !== null && (principal.role !== 'admin' || principal.agentId !== null))
      throw new ThreadlogError('forbidden', 'only an admin key that is bound to no agent may act for one');
    const agentId = actingFor ?? principal.agentId;
    const agent = agentId === null ? undefined : await this.assignees.agent(principal.organizationId, agentId);
    if (actingFor !== null && agent === undefined) throw new ThreadlogError('unknown_agent');
    if (agent?.archived === true) throw new ThreadlogError('resource_archived', `the agent ${agentId ?? ''} is archived`);
    const { keyId, keyName, role } = principal;
    const person = agentId === null ? { id: keyId, name: keyName } : { id: agentId, name: agent?.name ?? agentId };
    return { principal, agentId, person: role === 'visitor' ? null : person };
  }

  /** Whether the key or token of a caller that was let in is still valid. @throws the error of the store that is away */
  async hasValidKey({ principal }: LiveCaller): Promise<boolean> {
    return await this.callers.isValid(principal);
  }

  /** Whether a caller that was let in may still be there: its key or token is valid, and its agent works. @throws as hasValidKey() */
  async isStill(caller: LiveCaller): Promise<boolean> {
    if (!(await this.hasValidKey(caller))) return false;
    const { agentId, principal } = caller;
    return agentId === null || (await this.assignees.agent(principal.organizationId, agentId, 0))?.archived !== true;
  }

  /**
   * Reads what a socket asks for.
   * @param pathOf how the client named a field of the filter
   * @throws ThreadlogError validation_failed for a wrong filter, or a position that the log has not reached; forbidden for a visitor that
   *   narrows by what it may not see
   */
  async wishOf(
    principal: Principal,
    given: Readonly<Record<string, unknown>>,
    pathOf: (field: string) => string = (field) => field,
  ): Promise<LiveWish> {
    const { since, ...filter } = given;
    const wish = parseFilter(filter, pathOf);
    const isVisitor = principal.role === 'visitor';
    if (isVisitor && (wish.inboxId !== undefined || wish.assigneeId !== undefined))
      throw new ThreadlogError('forbidden', 'a visitor narrows by conversationId and types');
    if (since === undefined || since === null) return { filter: wish, since: undefined };
    const wrong = (message: string) => new ThreadlogError('validation_failed', undefined, { errors: [{ field: 'since', message }] });
    if (since === 'start') return { filter: wish, since: { position: 'start', told: Infinity } };
    const position = typeof since === 'string' ? this.positions.read(principal, since) : undefined;
    if (position === undefined)
      throw wrong(
        isVisitor ? 'must be start, or a position that this visitor was told' : 'must be start, or the position of a frame or an answer',
      );
    const cursor = cursorOf(parsePublicPosition(position));
    let head = await this.head();
    // The look that is shared may have begun before the write whose position this is.
    if (head === 'start' || cursor.position > head) head = await this.store.head();
    // Whoever goes on from such a position would silently miss the events up to it.
    if (head === 'start' || cursor.position > head)
      throw wrong(`is beyond the end of the log${isVisitor ? '' : `, which is ${head === 'start' ? 'empty' : `at ${head}`}`}`);
    return { filter: wish, since: cursor };
  }

  /** The end of the log: what is stored later comes after it. All who ask at the same time share one look. */
  async head(): Promise<Position | 'start'> {
    return await (this.#head ??= this.store.head().finally(() => (this.#head = undefined)));
  }
}

const protocolsOf = (request: IncomingMessage) => (request.headers['sec-websocket-protocol'] ?? '').split(',').map((one) => one.trim());

const keyOfProtocol = (protocol: string) => (protocol.startsWith(KEY_PROTOCOL) ? protocol.slice(KEY_PROTOCOL.length) : undefined);
