import { Global, Module } from '@nestjs/common';
import { handlersIn } from '../commands/handlers.js';
import * as automaticAnswer from './automatic-answer.commands.js';
import * as automaticAssignment from './automatic-assignment.commands.js';
import * as bulk from './bulk.commands.js';
import { BulkController } from './bulk.controller.js';
import * as commands from './conversation.commands.js';
import { ConversationController } from './conversation.controller.js';
import * as list from './conversation.list.js';
import * as queries from './conversation.reader.js';
import * as ownList from './visitor-conversation.list.js';
import { VisitorConversations } from './visitor-conversation.requests.js';

const { ConversationWriter } = commands;
const { ConversationReader } = queries;

@Global()
@Module({
  controllers: [ConversationController, BulkController],
  providers: [
    ConversationWriter,
    ConversationReader,
    VisitorConversations,
    ...handlersIn(commands, automaticAnswer, automaticAssignment, bulk, queries, list, ownList),
  ],
  exports: [ConversationWriter, ConversationReader],
})
export class ConversationsModule {}
