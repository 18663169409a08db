import { Body, Controller, HttpCode, Post } from '@nestjs/common';
import { CommandBus } from '@nestjs/cqrs';
import type { CommandContext } from '../commands/command-context.js';
import { About, Answers, dataAndWarningsOf, dataOf } from '../http/answers.js';
import { Roles } from '../security/auth.guard.js';
import { Answered } from '../http/answered.js';
import { InContext } from '../http/parameters.js';
import { Examples } from '../http/request-schema.js';
import { IsNested, IsResourceId, IsWhole, NullIsAbsent } from '../http/validation.js';
import { type RevokedTokensAnswer, revokedTokensSchema, type VisitorTokenAnswer, visitorTokenSchema } from './visitor-token.answer.js';
import { MintVisitorToken, RevokeVisitorTokens } from './visitor.commands.js';
import { VisitorInputDto } from './visitor.controller.js';
import type { KeyLeft } from './visitor.writer.js';

const DEFAULT_TTL = 3_600;
const MIN_TTL = 60;
const MAX_TTL = 86_400;

@Examples({ 'for an hour': { visitor: { userId: 'u-1815', name: 'Ada Lovelace' }, ttl: 3600 } })
class MintTokenDto {
  /** As in POST /conversations. */
  @IsNested(VisitorInputDto) visitor!: VisitorInputDto;
  /** Seconds; an hour by default. */
  @NullIsAbsent() @IsWhole(MIN_TTL, MAX_TTL) ttl?: number;
}

@Examples({ 'all of one visitor': { visitorId: 'a-visitor' } })
class RevokeTokensDto {
  @IsResourceId() visitorId!: string;
}

/** Tokens with which a widget speaks for one visitor. There is no list of them, since none is stored. */
@Controller('visitor-tokens')
@About('Tokens with which a widget in a browser speaks for one visitor.')
export class VisitorTokenController {
  constructor(private readonly commands: CommandBus) {}

  @Post()
  @HttpCode(201)
  @Roles('admin', 'agent')
  @Answers(
    'Makes a token with which a widget speaks for its visitor.',
    "Finds or creates the visitor as `POST /conversations` does, with the same events. The token itself is signed and stored nowhere. Until it expires it can open, read, continue and rate the visitor's own conversations.",
    { 201: dataAndWarningsOf(visitorTokenSchema) },
    {
      errors: ['unknown_company', 'visitor_erased', 'limit_exceeded'],
    },
  )
  async mint(
    @Body() body: MintTokenDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: VisitorTokenAnswer; warnings?: readonly KeyLeft[] }>> {
    const minting = new MintVisitorToken(context, body.visitor, body.ttl ?? DEFAULT_TTL);
    const { token, visitorId, expiresAt, position, left } = await this.commands.execute(minting);
    return new Answered({ data: { token, visitorId, expiresAt }, ...(left.length === 0 ? {} : { warnings: left }) }, { position });
  }

  /** Ends all tokens of the visitor. POST instead of DELETE, since every call is another revocation. */
  @Post('revoke')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @Answers(
    'Ends all tokens that a visitor has.',
    'Appends `VisitorTokensRevoked`. This process refuses every token of the visitor at once and all others within a second; tokens made later are valid.',
    { 200: dataOf(revokedTokensSchema) },
    { errors: ['not_found'] },
  )
  async revoke(@Body() body: RevokeTokensDto, @InContext() context: CommandContext): Promise<Answered<{ data: RevokedTokensAnswer }>> {
    const { visitorId, revokedAt, position } = await this.commands.execute(new RevokeVisitorTokens(context, body.visitorId));
    return new Answered({ data: { visitorId, revokedAt } }, { position });
  }
}
