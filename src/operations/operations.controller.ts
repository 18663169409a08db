import { Controller, Get, Inject } from '@nestjs/common';
import { About, Answers, dataOf } from '../http/answers.js';
import { OrganizationId } from '../http/parameters.js';
import { Roles } from '../security/auth.guard.js';
import { type OperationsAnswer, operationsSchema } from './operations.answer.js';
import { OperationsReader } from './operations.reader.js';

/** What stands still and what waits. Changing it is for the command line alone. */
@Controller('operations')
@About('What stands still, what is behind, and what waits to be done.')
export class OperationsController {
  constructor(@Inject(OperationsReader) private readonly operations: OperationsReader) {}

  @Get()
  @Roles('admin')
  @Answers(
    'Tells what stands still and what waits.',
    "Answers the lag of every group of read models and every reactor, the organization's parked streams, and its open jobs by kind and age. `threadlog projections` and `threadlog parked` change them.",
    { 200: dataOf(operationsSchema) },
    { name: 'read' },
  )
  async read(@OrganizationId() organizationId: string): Promise<{ data: OperationsAnswer }> {
    return { data: await this.operations.read(organizationId) };
  }
}
