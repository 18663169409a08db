import { Module } from '@nestjs/common';
import { MeController } from './me.controller.js';
import { SessionController } from './session.controller.js';

@Module({
  controllers: [SessionController, MeController],
})
export class ConsoleModule {}
