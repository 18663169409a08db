import { Inject } from '@nestjs/common';
import { Command, CommandHandler, type ICommandHandler } from '@nestjs/cqrs';
import type { CommandContext } from '../commands/command-context.js';
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

@CommandHandler(CreateApiKey)
export class CreateApiKeyHandler implements ICommandHandler<CreateApiKey> {
  constructor(@Inject(ApiKeyWriter) private readonly apiKeys: ApiKeyWriter) {}

  execute({ context, input }: CreateApiKey): Promise<ApiKeyChanged & { readonly key: string }> {
    return this.apiKeys.create(context, input);
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

@CommandHandler(ChangeApiKey)
export class ChangeApiKeyHandler implements ICommandHandler<ChangeApiKey> {
  constructor(@Inject(ApiKeyWriter) private readonly apiKeys: ApiKeyWriter) {}

  execute({ context, id, changes }: ChangeApiKey): Promise<ApiKeyChanged> {
    return this.apiKeys.change(context, id, changes);
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

@CommandHandler(RevokeApiKey)
export class RevokeApiKeyHandler implements ICommandHandler<RevokeApiKey> {
  constructor(@Inject(ApiKeyWriter) private readonly apiKeys: ApiKeyWriter) {}

  execute({ context, id }: RevokeApiKey): Promise<ApiKeyChanged> {
    return this.apiKeys.revoke(context, id);
  }
}

/** Every handler of this file; the module registers them, and the start checks that every command has one. */
export const apiKeyCommandHandlers = [CreateApiKeyHandler, ChangeApiKeyHandler, RevokeApiKeyHandler];
