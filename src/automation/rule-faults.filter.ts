import { type ArgumentsHost, Catch, type ExceptionFilter, Inject } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { type FieldError, ThreadlogError } from '../errors.js';
import { sendProblem } from '../http/error.filter.js';
import { isRecord, MAX_NAMED } from '../http/validation.js';
import { principalOf } from '../security/callers.js';
import { RefusedRule, RuleWriter } from './rule.commands.js';

/**
 * A rule is refused for its form before anything that it names is looked up. This adds what else is wrong with it, so that whoever writes a
 * rule corrects it once. The rule is the request's body, or its field `rule`; a parameter `id` names the rule that is to change.
 */
@Catch(ThreadlogError)
export class RuleFaultsFilter implements ExceptionFilter<ThreadlogError> {
  constructor(@Inject(RuleWriter) private readonly writer: RuleWriter) {}

  async catch(error: ThreadlogError, host: ArgumentsHost): Promise<void> {
    const http = host.switchToHttp();
    const request = http.getRequest<FastifyRequest>();
    const { code, detail, extra } = error;
    const more = code === 'validation_failed' && !(error instanceof RefusedRule) ? await this.faultsBeside(request) : [];
    const errors = [...(extra.errors ?? []), ...more].slice(0, MAX_NAMED);
    sendProblem(
      more.length === 0 ? error : new ThreadlogError(code, detail, { ...extra, errors }),
      request,
      http.getResponse<FastifyReply>(),
    );
  }

  private async faultsBeside(request: FastifyRequest): Promise<FieldError[]> {
    const { body, params } = request;
    if (!isRecord(body)) return [];
    const { organizationId } = principalOf(request);
    const { id } = params as { readonly id?: string };
    try {
      return isRecord(body['rule'])
        ? await this.writer.faultsBeside(organizationId, body['rule'], undefined, ['rule'])
        : await this.writer.faultsBeside(organizationId, body, id);
    } catch {
      // A store is away. What was found without it is right all the same.
      return [];
    }
  }
}
