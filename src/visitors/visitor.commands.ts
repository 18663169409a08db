import { Command } from '@nestjs/cqrs';
import type { Position } from '../event-store/event-store.js';
import type { CommandContext } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import { type Resolved, VisitorWriter } from './visitor.writer.js';
import type { PlainVisitor } from './visitor.sealing.js';
import { type MintedToken, type RevokedTokens, VisitorTokenWriter } from './visitor-token.writer.js';

/**
 * Finds the visitor with the userId or the e-mail and updates it, or creates one; `made` tells which.
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

/**
 * Sets the named fields; null clears a field, attributes are merged.
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

/** Archives a visitor and frees its userId and e-mail; its conversations stay. @throws ThreadlogError not_found */
export class ArchiveVisitor extends Command<{ readonly revision: number; readonly position: Position }> {
  constructor(
    readonly context: CommandContext,
    readonly visitorId: string,
  ) {
    super();
  }
}

/**
 * Makes a token with which a widget speaks for a visitor, who is found or created as for a new conversation.
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

/** Ends every token that a visitor has. @throws ThreadlogError not_found */
export class RevokeVisitorTokens extends Command<RevokedTokens> {
  constructor(
    readonly context: CommandContext,
    readonly visitorId: string,
  ) {
    super();
  }
}

const handled = handledBy(VisitorWriter);
const handledByTokens = handledBy(VisitorTokenWriter);

/** The handlers of this file, for the module. */
export const visitorCommandHandlers = [
  handled(CreateVisitor, (writer, { context, given }) => writer.register(context, given)),
  handled(ChangeVisitor, (writer, { context, visitorId, fields }) => writer.change(context, visitorId, fields)),
  handled(ArchiveVisitor, (writer, { context, visitorId }) => writer.archive(context, visitorId)),
  handledByTokens(MintVisitorToken, (writer, { context, given, ttlSeconds }) => writer.mint(context, given, ttlSeconds)),
  handledByTokens(RevokeVisitorTokens, (writer, { context, visitorId }) => writer.revoke(context, visitorId)),
];
