import { Module } from '@nestjs/common';
import { handlersIn } from '../commands/handlers.js';
import { DeliveryController } from './delivery.controller.js';
import { DeliveryReader } from './delivery.reader.js';
import { DeliveryWriter } from './delivery.writer.js';
import { Replays } from './webhook.replays.js';
import * as commands from './webhook.commands.js';
import { WebhookController } from './webhook.controller.js';
import { WebhookSecrets } from './webhook.secrets.js';
import { WebhookWriter } from './webhook.writer.js';

@Module({
  controllers: [WebhookController, DeliveryController],
  providers: [WebhookWriter, WebhookSecrets, DeliveryReader, DeliveryWriter, Replays, ...handlersIn(commands)],
})
export class WebhooksModule {}
