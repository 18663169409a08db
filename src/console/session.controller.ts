import { Body, Controller, Delete, HttpCode, Inject, Post, Req, Res } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { ThreadlogError } from '../errors.js';
import { About, Answers, dataOf } from '../http/answers.js';
import { RateLimits } from '../http/rate-limits.js';
import { Examples } from '../http/request-schema.js';
import { IsTypedText, NullIsAbsent } from '../http/validation.js';
import type { Principal } from '../security/api-key-lookup.js';
import { Public } from '../security/auth.guard.js';
import { Callers } from '../security/callers.js';
import { assertFromConsole } from '../security/console-request.js';
import { ConsoleSessions, SESSION_COOKIE, SESSION_MS, sessionIn } from '../security/console-sessions.js';

/** Longer than any key or link. */
const MAX_SECRET = 500;

/** What signing in and out may be refused for. */
const SIGNING = [
  'headers_too_large',
  'malformed_request',
  'forbidden',
  'payload_too_large',
  'rate_limited',
  'internal_error',
  'store_unavailable',
] as const;

const sessionSchema = z.strictObject({ expiresAt: z.iso.datetime({ precision: 3 }) }).meta({ id: 'ConsoleSession' });

@Examples({ 'with a key': { key: 'YOUR_API_KEY' }, 'with a link': { link: 'THE_PART_OF_THE_LINK_AFTER_SIGN_IN' } })
class SignInDto {
  /** An API key. */
  @NullIsAbsent() @IsTypedText(MAX_SECRET) key?: string;
  /** What follows `#sign-in=` in the link that a first start prints. It works once. */
  @NullIsAbsent() @IsTypedText(MAX_SECRET) link?: string;
}

/** Signing in to the console and out of it. The session's token is in a cookie alone, which no script reads. */
@Controller('console')
@About('Signing in to the console and out of it.')
export class SessionController {
  constructor(
    @Inject(ConsoleSessions) private readonly sessions: ConsoleSessions,
    @Inject(Callers) private readonly callers: Callers,
    @Inject(RateLimits) private readonly rateLimits: RateLimits,
  ) {}

  @Post('session')
  @HttpCode(201)
  @Public()
  @Answers(
    'Begins a session of the console.',
    'Appends nothing. Takes an API key, or the one-time link of a first start, and sets a cookie that stands for the key for 12 hours. Only for pages of this host: it needs the header X-Threadlog-Console, and so does every write by session.',
    { 201: dataOf(sessionSchema) },
    { errors: [...SIGNING, 'malformed_json', 'validation_failed', 'unauthenticated', 'unsupported_media_type'], name: 'signIn' },
  )
  async signIn(
    @Body() { key, link }: SignInDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: z.infer<typeof sessionSchema> }> {
    assertFromConsole(request);
    if ((key === undefined) === (link === undefined))
      throw new ThreadlogError('validation_failed', undefined, {
        errors: [{ field: 'key', message: 'or link must be there, and not both' }],
      });
    const { token, expiresAt } = await this.sessions.begin(
      key === undefined ? await this.ofLink(link ?? '', request.ip, reply) : await this.ofKey(key, request.ip, reply),
    );
    setCookie(request, reply, token, SESSION_MS / 1_000);
    return { data: { expiresAt: new Date(expiresAt).toISOString() } };
  }

  @Delete('session')
  @HttpCode(204)
  @Public()
  @Answers(
    'Ends the session of the console.',
    'Appends nothing. Ends the session of the cookie and removes the cookie. It is done in every process within a second, and repeating it changes nothing.',
    { 204: null },
    { errors: SIGNING, name: 'signOut' },
  )
  async signOut(@Req() request: FastifyRequest, @Res({ passthrough: true }) reply: FastifyReply): Promise<void> {
    assertFromConsole(request);
    const token = sessionIn(request.headers.cookie);
    if (token !== undefined) await this.sessions.end(token);
    setCookie(request, reply, '', 0);
  }

  private async ofKey(key: string, address: string, reply: FastifyReply): Promise<Principal> {
    const principal = await this.callers.recognize(key, address, reply);
    // A visitor's token is for widgets, and ends sooner than a session.
    if (principal.role === 'visitor') throw new ThreadlogError('unauthenticated');
    return principal;
  }

  private async ofLink(link: string, address: string, reply: FastifyReply): Promise<Principal> {
    const principal = await this.rateLimits.authenticate(address, reply, () => this.sessions.useLink(link));
    if (principal === undefined) throw new ThreadlogError('unauthenticated', 'the link was used or has expired');
    return principal;
  }
}

/** Strict: no other site's page, form or link brings it along. Secure only where the page came by TLS, since many try Threadlog without. */
function setCookie(request: FastifyRequest, reply: FastifyReply, token: string, seconds: number): void {
  const secure = request.protocol === 'https' ? '; Secure' : '';
  void reply.header('set-cookie', `${SESSION_COOKIE}=${token}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Strict${secure}`);
}
