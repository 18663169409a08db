import { Module } from '@nestjs/common';
import { handlersIn } from '../commands/handlers.js';
import * as commands from './view.commands.js';
import { ViewController } from './view.controller.js';

@Module({ controllers: [ViewController], providers: [commands.ViewWriter, ...handlersIn(commands)] })
export class ViewsModule {}
