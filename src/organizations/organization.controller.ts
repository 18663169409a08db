import { Controller, Get, Inject } from '@nestjs/common';
import { Transactor } from '../commands/transactor.js';
import { About, Answers, dataOf } from '../http/answers.js';
import { Roles } from '../security/auth.guard.js';
import { ThreadlogError } from '../errors.js';
import { type Answered, dataAnswer } from '../http/answered.js';
import { OrganizationId } from '../http/parameters.js';
import { type OrganizationAnswer, organizationAnswer, organizationSchema } from './organization.answer.js';
import { organizationAggregate } from './organization.js';

/**
 * The organization of the caller's key; no path reaches another. Its history tells who chose the default inbox, which no inbox's history
 * does; the choice is made through `isDefault` of an inbox.
 */
@Controller('organization')
@About('The organization that the key belongs to.')
export class OrganizationController {
  constructor(@Inject(Transactor) private readonly transactor: Transactor) {}

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    "Reads the caller's organization.",
    'Answers the organization that the key belongs to, with the id of its default inbox. No path leads to another organization.',
    { 200: dataOf(organizationSchema) },
  )
  async get(@OrganizationId() organizationId: string): Promise<Answered<{ data: OrganizationAnswer }>> {
    const found = await this.transactor.load(organizationAggregate, organizationId, organizationId);
    if (found === undefined) throw new ThreadlogError('not_found');
    return dataAnswer(found, organizationAnswer(organizationId, found.state, found.revision));
  }
}
