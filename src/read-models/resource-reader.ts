import { Inject, Injectable } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import type { Aggregate, DomainEvent } from '../event-store/aggregate.js';
import type { Position } from '../event-store/event-store.js';
import { type FoldList, FoldLists, type FoldListRow, type FoldPage, type ListQuery } from './fold-list.js';
import { ReadYourWrites } from './read-your-writes.js';

/** How one kind of resource is read from its stream. */
export interface ResourceStream<S, E extends DomainEvent> {
  readonly aggregate: Aggregate<S, E>;
  /** False when the stream holds another kind of resource, such as a team under the path of agents, or one that the caller may not see. */
  readonly shows?: (state: S) => boolean;
}

/** What all routes that read people and settings have in common: lists come from a read model, one resource from its stream. */
@Injectable()
export class ResourceReader {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(FoldLists) private readonly lists: FoldLists,
    @Inject(ReadYourWrites) private readonly readYourWrites: ReadYourWrites,
  ) {}

  /**
   * A page of a list, once its read model has reached the position that the request names.
   * @throws ThreadlogError validation_failed, and what ReadYourWrites.reached() throws
   */
  async list<R extends FoldListRow, A>(
    list: FoldList<R, A>,
    organizationId: string,
    query: ListQuery,
    request: FastifyRequest,
  ): Promise<FoldPage<A>> {
    await this.readYourWrites.reached(request, list.table.group);
    return this.lists.page(list, organizationId, query);
  }

  /** One resource as its stream has it, never behind a write. @throws ThreadlogError not_found, store_unavailable */
  async one<S, E extends DomainEvent>(
    { aggregate, shows }: ResourceStream<S, E>,
    organizationId: string,
    id: string,
  ): Promise<{ readonly state: S; readonly revision: number; readonly position: Position }> {
    const found = await this.transactor.load(aggregate, organizationId, id);
    if (found === undefined || shows?.(found.state) === false) throw new ThreadlogError('not_found');
    return found;
  }
}
