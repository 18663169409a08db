import { Controller, Get, Inject, Req, Res } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { About, Answers } from '../http/answers.js';
import { Public } from '../security/auth.guard.js';
import { ThreadlogError } from '../errors.js';
import { Metrics, METRICS_TYPE } from './metrics.js';

/** Whether the metrics are served on a separate port. */
export const METRICS_ELSEWHERE = Symbol('MetricsElsewhere');

/** For Prometheus, which asks the process directly. Requests through a proxy come from outside and get 404. */
@Controller('metrics')
@About('Measurements for Prometheus, for those who run the server.')
export class MetricsController {
  constructor(
    @Inject(Metrics) private readonly metrics: Metrics,
    @Inject(METRICS_ELSEWHERE) private readonly isElsewhere: boolean,
  ) {}

  @Get()
  @Public()
  @Answers(
    'Answers the metrics of this process, unless METRICS_PORT is set or the request came through a proxy.',
    'For Prometheus, in its text format. Requests through a proxy get 404, since the metrics are for those who run the server.',
    {
      200: { contentType: 'text/plain' },
    },
    { errors: ['not_found'] },
  )
  async read(@Req() request: FastifyRequest, @Res({ passthrough: true }) reply: FastifyReply): Promise<string> {
    const { forwarded, 'x-forwarded-for': forwardedFor, via } = request.headers;
    if (this.isElsewhere || forwarded !== undefined || forwardedFor !== undefined || via !== undefined)
      throw new ThreadlogError('not_found');
    const text = await this.metrics.text();
    void reply.type(METRICS_TYPE);
    return text;
  }
}
