import { Controller, Get, Res } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { ThreadlogError } from '../errors.js';
import { About, Answers } from '../http/answers.js';
import { Public } from '../security/auth.guard.js';

/** What the address of the live feed answers to whoever does not ask for a WebSocket. */
@Controller('support')
@About('The live feed, a WebSocket: docs/live.md and /api/asyncapi.json describe it.')
export class LiveAddressController {
  @Get('conversations/live')
  @Public()
  @Answers(
    'Opens the live feed, for a request that asks for a WebSocket.',
    'Any other request gets 426. /api/asyncapi.json describes what is sent over it. The handshake takes a key in a header, in `Sec-WebSocket-Protocol` or in the first message, or a ticket of `POST /live-tickets` as `?ticket=`.',
    {},
    { errors: ['upgrade_required'] },
  )
  upgrade(@Res({ passthrough: true }) reply: FastifyReply): never {
    void reply.header('upgrade', 'websocket').header('connection', 'upgrade');
    throw new ThreadlogError('upgrade_required', 'ask for a WebSocket, or use the namespace of the same name over socket.io');
  }
}
