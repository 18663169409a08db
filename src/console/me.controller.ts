import { Controller, Get, Inject, Req } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import { About, Answers, dataOf } from '../http/answers.js';
import { Caller } from '../http/parameters.js';
import { organizationAggregate } from '../organizations/organization.js';
import type { Principal } from '../security/api-key-lookup.js';
import { Roles } from '../security/auth.guard.js';
import { AssigneeReader } from '../team/assignee.reader.js';
import { type MeAnswer, meSchema } from './me.answer.js';

/** Who the caller is, for programs that hold a key or a session and must know what they may show. */
@Controller('me')
@About('Who the caller is.')
export class MeController {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(AssigneeReader) private readonly assignees: AssigneeReader,
  ) {}

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Tells who the caller is.',
    'Answers the role of the key or session, the agent that it is bound to or acts for, and its organization.',
    { 200: dataOf(meSchema) },
    { name: 'read' },
  )
  async read(@Caller() principal: Principal, @Req() request: FastifyRequest): Promise<{ data: MeAnswer }> {
    const { organizationId, keyId, keyName, role, agentId } = principal;
    if (role === 'visitor') throw new ThreadlogError('forbidden');
    // The guard has checked that the caller may act for it.
    const acting = request.headers['x-agent-id'];
    const id = typeof acting === 'string' ? acting : agentId;
    const [organization, agent] = await Promise.all([
      this.transactor.load(organizationAggregate, organizationId, organizationId),
      id === null ? undefined : this.assignees.agent(organizationId, id),
    ]);
    return {
      data: {
        role,
        keyId,
        keyName,
        agent: id === null ? null : { id, name: agent?.name ?? id },
        mayActFor: role === 'admin' && agentId === null,
        organization: { id: organizationId, name: organization?.state.name ?? organizationId },
      },
    };
  }
}
