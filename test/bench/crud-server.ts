import 'reflect-metadata';
import { randomUUID } from 'node:crypto';
import { Body, Controller, HttpCode, Module, Param, Post, ValidationPipe } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { IsString, Length } from 'class-validator';
import pg from 'pg';

/*
 * What a support desk without an event log would do for a reply: the same framework and validation, one transaction that updates the
 * conversation and inserts the message. No audit, no history, no idempotency, no authentication: what it is measured against is given
 * every advantage.
 */
const pool = new pg.Pool({ connectionString: process.env['DATABASE_URL'], max: 16 });

class ReplyDto {
  @IsString() @Length(1, 50_000) message!: string;
}

@Controller('api/support/conversations')
class CrudController {
  @Post(':id/reply')
  @HttpCode(201)
  async reply(@Param('id') id: string, @Body() body: ReplyDto): Promise<object> {
    const client = await pool.connect();
    try {
      const messageId = randomUUID();
      const createdAt = new Date();
      await client.query('begin');
      await client.query({
        name: 'touch',
        text: 'update crud.conversations set updated_at = $2, waiting_since = null, message_count = message_count + 1, last_message = $3 where id = $1',
        values: [id, createdAt, body.message],
      });
      await client.query({
        name: 'add',
        text: 'insert into crud.messages (id, conversation_id, type, content, author_id, created_at) values ($1, $2, $3, $4, $5, $6)',
        values: [messageId, id, 'agent', body.message, 'agent-ada', createdAt],
      });
      await client.query('commit');
      return { data: { id: messageId, type: 'agent', content: body.message, createdAt, author: { id: 'agent-ada', name: 'Ada Ortiz' } } };
    } catch (error) {
      await client.query('rollback');
      throw error;
    } finally {
      client.release();
    }
  }
}

@Module({ controllers: [CrudController] })
class CrudModule {}

const app = await NestFactory.create<NestFastifyApplication>(CrudModule, new FastifyAdapter(), { logger: false });
app.useGlobalPipes(new ValidationPipe({ transform: true, whitelist: true, forbidNonWhitelisted: true }));
await app.listen(Number(process.env['PORT']), '127.0.0.1');
process.stdout.write('ready\n');
