import type { Migration } from 'kysely';
import * as log from './0001_log.js';
import * as keep from './0002_keep.js';
import * as projections from './0003_projections.js';
import * as apiKeyRateLimit from './0004_api_key_rate_limit.js';
import * as runtime from './0005_runtime.js';
import * as shapes from './0006_shapes.js';
import * as reactors from './0007_reactors.js';
import * as liveTickets from './0008_live_tickets.js';
import * as webhooks from './0009_webhooks.js';
import * as rules from './0010_rules.js';
import * as analysts from './0011_analysts.js';
import * as consoleSessions from './0012_console_sessions.js';

/** Every migration by name, in order. A name that ran on any database stays for ever. There are no down migrations. */
export const migrations: Readonly<Record<string, Migration>> = {
  '0001_log': log,
  '0002_keep': keep,
  '0003_projections': projections,
  '0004_api_key_rate_limit': apiKeyRateLimit,
  '0005_runtime': runtime,
  '0006_shapes': shapes,
  '0007_reactors': reactors,
  '0008_live_tickets': liveTickets,
  '0009_webhooks': webhooks,
  '0010_rules': rules,
  '0011_analysts': analysts,
  '0012_console_sessions': consoleSessions,
};
