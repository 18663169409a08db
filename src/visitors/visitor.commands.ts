import { Inject } from '@nestjs/common';
import { Command, CommandHandler, type ICommandHandler } from '@nestjs/cqrs';
import type { Position } from '../event-store/event-store.js';
import type { CommandContext } from '../commands/command-context.js';
import { type Resolved, VisitorWriter } from './visitor.writer.js';
import type { PlainVisitor } from './visitor.sealing.js';
import { type MintedToken, type RevokedTokens, VisitorTokens } from './visitor-token.writer.js';

/**
 * Finds the visitor that the userId or the e-mail names and sets what differs, or makes one; `made` tells which.
 * @throws ThreadlogError id_taken, user_id_taken, email_taken, visitor_conflict, unknown_company, limit_exceeded
 */
export class CreateVisitor extends Command<Resolved> {
  constructor(
    readonly context: CommandContext,
    readonly given: PlainVisitor & { readonly id?: string },
  ) {
    super();
  }
}

@CommandHandler(CreateVisitor)
export class CreateVisitorHandler implements ICommandHandler<CreateVisitor> {
  constructor(@Inject(VisitorWriter) private readonly directory: VisitorWriter) {}

  execute({ context, given }: CreateVisitor): Promise<Resolved> {
    return this.directory.register(context, given);
  }
}

/**
 * Sets the named fields; null clears one, attributes are merged.
 * @throws ThreadlogError not_found, resource_archived, visitor_erased, user_id_taken, email_taken, unknown_company, limit_exceeded
 */
export class ChangeVisitor extends Command<Resolved> {
  constructor(
    readonly context: CommandContext,
    readonly visitorId: string,
    readonly fields: PlainVisitor,
  ) {
    super();
  }
}

@CommandHandler(ChangeVisitor)
export class ChangeVisitorHandler implements ICommandHandler<ChangeVisitor> {
  constructor(@Inject(VisitorWriter) private readonly directory: VisitorWriter) {}

  execute({ context, visitorId, fields }: ChangeVisitor): Promise<Resolved> {
    return this.directory.change(context, visitorId, fields);
  }
}

/** Ends a visitor and frees its userId and e-mail; its conversations stay. @throws ThreadlogError not_found */
export class ArchiveVisitor extends Command<{ readonly revision: number; readonly position: Position }> {
  constructor(
    readonly context: CommandContext,
    readonly visitorId: string,
  ) {
    super();
  }
}

@CommandHandler(ArchiveVisitor)
export class ArchiveVisitorHandler implements ICommandHandler<ArchiveVisitor> {
  constructor(@Inject(VisitorWriter) private readonly directory: VisitorWriter) {}

  execute({ context, visitorId }: ArchiveVisitor): Promise<{ revision: number; position: Position }> {
    return this.directory.archive(context, visitorId);
  }
}

/**
 * Makes a token by which a widget speaks for a visitor, who is found or made as for a new conversation.
 * @throws ThreadlogError resource_archived, visitor_erased, limit_exceeded, unknown_company
 */
export class MintVisitorToken extends Command<MintedToken> {
  constructor(
    readonly context: CommandContext,
    readonly given: PlainVisitor & { readonly id?: string },
    readonly ttlSeconds: number,
  ) {
    super();
  }
}

@CommandHandler(MintVisitorToken)
export class MintVisitorTokenHandler implements ICommandHandler<MintVisitorToken> {
  constructor(@Inject(VisitorTokens) private readonly tokens: VisitorTokens) {}

  execute({ context, given, ttlSeconds }: MintVisitorToken): Promise<MintedToken> {
    return this.tokens.mint(context, given, ttlSeconds);
  }
}

/** Ends every token that a visitor has. @throws ThreadlogError not_found */
export class RevokeVisitorTokens extends Command<RevokedTokens> {
  constructor(
    readonly context: CommandContext,
    readonly visitorId: string,
  ) {
    super();
  }
}

@CommandHandler(RevokeVisitorTokens)
export class RevokeVisitorTokensHandler implements ICommandHandler<RevokeVisitorTokens> {
  constructor(@Inject(VisitorTokens) private readonly tokens: VisitorTokens) {}

  execute({ context, visitorId }: RevokeVisitorTokens): Promise<RevokedTokens> {
    return this.tokens.revoke(context, visitorId);
  }
}

export const visitorCommandHandlers = [
  CreateVisitorHandler,
  ChangeVisitorHandler,
  ArchiveVisitorHandler,
  MintVisitorTokenHandler,
  RevokeVisitorTokensHandler,
];
