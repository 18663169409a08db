import { Module } from '@nestjs/common';
import { ConsoleFiles } from './console.files.js';
import { MeController } from './me.controller.js';
import { SessionController } from './session.controller.js';

@Module({
  controllers: [SessionController, MeController],
  providers: [ConsoleFiles],
})
export class ConsoleModule {}
