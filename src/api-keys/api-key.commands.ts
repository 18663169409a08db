import { Command } from '@nestjs/cqrs';
import type { CommandContext } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import type { ApiKeyChanges } from './api-key.js';
import { type ApiKeyChanged, type ApiKeyInput, ApiKeyWriter } from './api-key.writer.js';

/** Answers the key itself, which is never shown again. @throws ThreadlogError unknown_agent, expiry_in_past */
export class CreateApiKey extends Command<ApiKeyChanged & { readonly key: string }> {
  constructor(
    readonly context: CommandContext,
    readonly input: ApiKeyInput,
  ) {
    super();
  }
}

/** @throws ThreadlogError not_found, resource_archived */
export class ChangeApiKey extends Command<ApiKeyChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly changes: ApiKeyChanges,
  ) {
    super();
  }
}

/** @throws ThreadlogError not_found */
export class RevokeApiKey extends Command<ApiKeyChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

/** Revokes all keys that are bound to an archived agent. */
export class RevokeKeysOfAgent extends Command<void> {
  constructor(
    readonly context: CommandContext,
    readonly agentId: string,
  ) {
    super();
  }
}

const handled = handledBy(ApiKeyWriter);

/** The handlers of this file, for the module. */
export const apiKeyCommandHandlers = [
  handled(CreateApiKey, (writer, { context, input }) => writer.create(context, input)),
  handled(ChangeApiKey, (writer, { context, id, changes }) => writer.change(context, id, changes)),
  handled(RevokeApiKey, (writer, { context, id }) => writer.revoke(context, id)),
  handled(RevokeKeysOfAgent, (writer, { context, agentId }) => writer.revokeOfAgent(context, agentId)),
];
