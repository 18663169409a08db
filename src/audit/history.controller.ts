import { Controller, Get, Inject, Param, Query, type Type } from '@nestjs/common';
import type { Answered } from '../http/answered.js';
import { Answers, dataOf, partOf } from '../http/answers.js';
import { By, OrganizationId } from '../http/parameters.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import type { AuditedResource, HistoryCaller } from '../read-models/audited-resource.js';
import {
  type DiffAnswer,
  diffAnswerSchema,
  DiffQueryDto,
  EventsQueryDto,
  eventSchema,
  type HistoryPage,
  HistoryReader,
  type VerificationAnswer,
  verificationSchema,
} from '../read-models/history.js';
import { Roles } from '../security/auth.guard.js';

/** The routes over the past of one kind of resource: its events, the comparison of two of its revisions, the proof of its chain. */
export function historyController(resource: AuditedResource): Type {
  const { path, isSingle, called, events: whatTheyTell, roles } = resource;
  const below = isSingle === true ? '' : ':id/';
  const idOf = (id: string | undefined, organizationId: string) => (isSingle === true ? organizationId : (id ?? ''));

  @Controller(path)
  class HistoryController {
    constructor(@Inject(HistoryReader) private readonly history: HistoryReader) {}

    @Get(`${below}events`)
    @Roles(...roles)
    @Answers(`Reads the events of ${called}.`, whatTheyTell, { 200: partOf(eventSchema) })
    events(
      @Param('id', ResourceIdPipe) id: string | undefined,
      @Query() query: EventsQueryDto,
      @OrganizationId() organizationId: string,
      @By() by: HistoryCaller,
    ): Promise<Answered<HistoryPage>> {
      return this.history.page(resource, by, organizationId, idOf(id, organizationId), query);
    }

    @Get(`${below}events/diff`)
    @Roles(...roles)
    @Answers(
      `Compares two revisions of ${called}.`,
      'Answers every field of its answer that differs, before and after, and the events between the two revisions. Without `from` it compares with the state before the first event; a revision that was not reached is 400.',
      { 200: diffAnswerSchema },
    )
    diff(
      @Param('id', ResourceIdPipe) id: string | undefined,
      @Query() query: DiffQueryDto,
      @OrganizationId() organizationId: string,
      @By() by: HistoryCaller,
    ): Promise<Answered<DiffAnswer>> {
      return this.history.diff(resource, by, organizationId, idOf(id, organizationId), query);
    }

    @Get(`${below}verify`)
    @Roles('admin', 'auditor')
    @Answers(
      `Proves the chain of ${called}.`,
      'Reads its whole stream and checks that every event is as it was written after the one before it. Names the first event that is not; `threadlog verify --against` also finds a cut tail and a chain that was computed anew.',
      { 200: dataOf(verificationSchema) },
    )
    verify(
      @Param('id', ResourceIdPipe) id: string | undefined,
      @OrganizationId() organizationId: string,
      @By() by: HistoryCaller,
    ): Promise<Answered<{ data: VerificationAnswer }>> {
      return this.history.verify(resource, by, organizationId, idOf(id, organizationId));
    }
  }
  return HistoryController;
}
