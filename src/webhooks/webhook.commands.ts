import { Command } from '@nestjs/cqrs';
import type { CommandContext } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import type { Actor } from '../event-store/aggregate.js';
import type { WebhookFields } from './webhook.js';
import { type WebhookChanged, type WebhookChanges, WebhookWriter } from './webhook.writer.js';

/** Answers the secret, which is never shown again. @throws ThreadlogError validation_failed, limit_exceeded */
export class CreateWebhook extends Command<WebhookChanged & { readonly secret: string }> {
  constructor(
    readonly context: CommandContext,
    readonly given: WebhookFields,
    readonly owner: Actor,
  ) {
    super();
  }
}

/** Sets the named fields. @throws ThreadlogError not_found, resource_archived, validation_failed */
export class ChangeWebhook extends Command<WebhookChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly changes: WebhookChanges,
  ) {
    super();
  }
}

/** @throws ThreadlogError not_found, resource_archived */
export class EnableWebhook extends Command<WebhookChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

/**
 * Disables an endpoint that answered 410 or failed for days, unless it has another URL by now.
 * @throws ThreadlogError not_found, resource_archived
 */
export class DisableFailedWebhook extends Command<WebhookChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly reason: 'gone' | 'failing',
    readonly url: string,
  ) {
    super();
  }
}

/** Answers the new secret, which is never shown again. @throws ThreadlogError not_found, resource_archived */
export class RotateWebhookSecret extends Command<WebhookChanged & { readonly secret: string }> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly overlapHours: number,
  ) {
    super();
  }
}

/** @throws ThreadlogError not_found */
export class DeleteWebhook extends Command<WebhookChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

const handled = handledBy(WebhookWriter);

/** The handlers of this file, for the module. */
export const webhookCommandHandlers = [
  handled(CreateWebhook, (writer, { context, given, owner }) => writer.create(context, given, owner)),
  handled(ChangeWebhook, (writer, { context, id, changes }) => writer.change(context, id, changes)),
  handled(EnableWebhook, (writer, { context, id }) => writer.change(context, id, { enabled: true })),
  handled(DisableFailedWebhook, (writer, { context, id, reason, url }) => writer.disable(context, id, reason, url)),
  handled(RotateWebhookSecret, (writer, { context, id, overlapHours }) => writer.rotate(context, id, overlapHours)),
  handled(DeleteWebhook, (writer, { context, id }) => writer.delete(context, id)),
];
