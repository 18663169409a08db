import { Controller, HttpCode, Inject, Post, Req } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import { About, Answers, dataOf } from '../http/answers.js';
import { Caller, InContext } from '../http/parameters.js';
import type { Principal } from '../security/api-key-lookup.js';
import { Roles } from '../security/auth.guard.js';
import { type LiveTicketAnswer, liveTicketSchema } from './live-ticket.answer.js';
import { LiveTickets } from './live-ticket.writer.js';

/** Tickets with which pages open sockets of the live feed. */
@Controller('live-tickets')
@About('Tickets with which a page in a browser opens the live feed.')
export class LiveTicketController {
  constructor(@Inject(LiveTickets) private readonly tickets: LiveTickets) {}

  @Post()
  @HttpCode(201)
  @Roles('admin', 'agent', 'auditor', 'analyst', 'visitor')
  @Answers(
    'Makes a ticket for one socket of the live feed.',
    'Appends nothing. `wss://HOST/support/conversations/live?ticket=…` opens one socket within 30 seconds, on any process, with the rights of the key or token that asked for the ticket. docs/live.md describes the feed.',
    { 201: dataOf(liveTicketSchema) },
  )
  async make(
    @Caller() principal: Principal,
    @InContext() context: CommandContext,
    @Req() request: FastifyRequest,
  ): Promise<{ data: LiveTicketAnswer }> {
    const actingFor = request.headers['x-agent-id'];
    return { data: await this.tickets.make(context, principal, typeof actingFor === 'string' ? actingFor : null) };
  }
}
