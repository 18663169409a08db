import { Module } from '@nestjs/common';
import { PublicEventsReader } from '../conversations/public-events.reader.js';
import { LiveAddressController } from './live-address.controller.js';
import { LiveAuthentication } from './live.authentication.js';
import { LiveEvents } from './live.events.js';
import { LiveVisitors } from './live-visitors.reader.js';
import { LiveFeed } from './live-feed.reader.js';
import { LiveTicketController } from './live-ticket.controller.js';
import { LiveTickets } from './live-ticket.writer.js';
import { LiveFollower } from './live.follower.js';
import { LiveGateway } from './live.gateway.js';
import { LiveMetrics } from './live.metrics.js';
import { LivePresence } from './live.presence.js';
import { LiveSessions } from './live.sessions.js';
import { LiveSockets } from './live.sockets.js';
import { LiveWire } from './live.wire.js';

@Module({
  controllers: [LiveAddressController, LiveTicketController],
  providers: [
    LiveFeed,
    LiveEvents,
    LiveVisitors,
    LiveTickets,
    LiveGateway,
    LiveFollower,
    LiveMetrics,
    LiveAuthentication,
    LivePresence,
    LiveSessions,
    LiveSockets,
    LiveWire,
    PublicEventsReader,
  ],
})
export class LiveModule {}
