import { z } from 'zod';
import { parseOrigins } from './http/origins.js';
import { parseNetworks } from './http-out/reachable.js';

const port = z.coerce.number().int().min(0).max(65_535);
const postgresUrl = z.string().regex(/^postgres(ql)?:\/\/\S+$/, 'must be postgres://user:password@host:port/database');

/** Every setting, its shape and its default. docs/configuration.md is generated from the descriptions. */
export const SETTINGS = {
  PORT: port.default(3000).describe('Port of the API; 0 takes a free one'),
  HOST: z.string().min(1).default('127.0.0.1').describe('Address that the API listens on; 0.0.0.0 for all'),
  DATA_DIR: z.string().min(1).default('./.data').describe('Folder of the embedded PostgreSQL and of the generated MASTER_KEY'),
  DATABASE_URL: postgresUrl
    .optional()
    .describe('PostgreSQL (15 or later) for read models and, without EVENTSTORE_URL, for the log; the embedded one when absent'),
  EVENTSTORE_URL: z
    .string()
    .regex(/^esdb(\+discover)?:\/\/\S+$/, 'must be esdb://host:port?tls=…')
    .optional()
    .describe(
      'EventStoreDB that holds the log; PostgreSQL holds it when absent. Not to be exported in a shell that starts an EventStoreDB, which takes EVENTSTORE_* for its own options and refuses to start',
    ),
  MASTER_KEY: z
    .string()
    .refine((text) => /^[A-Za-z0-9+/]{43}=$/.test(text), 'must be 32 bytes in base64')
    .optional()
    .describe("32 bytes in base64 that wrap the visitors' keys; made in DATA_DIR when absent. Losing it loses every personal field"),
  BOOTSTRAP_API_KEY: z
    .string()
    .regex(/^[A-Za-z0-9_-]{32,128}$/, 'must be 32 to 128 of A-Z a-z 0-9 _ -')
    .optional()
    .describe('Admin key to make at the first start instead of a random one'),
  DEMO: z
    .enum(['true', 'false'])
    .default('true')
    .transform((text) => text === 'true')
    .describe('Whether the first start makes sample conversations'),
  PROJECTIONS: z
    .enum(['process', 'inline', 'off'])
    .default('process')
    .describe(
      "Who runs projections and reactors. process: a worker that the API starts as its child and that ends with it; inline: the API's own process, in less memory; off: separate workers",
    ),
  POOL_SIZE: z.coerce.number().int().min(2).max(200).default(10).describe('Database connections of this process for queries'),
  RATE_LIMIT_PER_MINUTE: z.coerce
    .number()
    .int()
    .min(0)
    .max(1_000_000)
    .default(6_000)
    .describe('Requests a minute that an API key may make of one API process, unless it carries its own limit; 0 for none'),
  AUTH_FAILURES_PER_MINUTE: z.coerce
    .number()
    .int()
    .min(0)
    .max(1_000_000)
    .default(10)
    .describe('API keys that are not valid a minute and client address; 0 for no limit'),
  METRICS_PORT: port
    .optional()
    .describe(
      'Port of /metrics, on HOST; without it a worker serves none, and the API serves them on its own port to whoever asks it directly',
    ),
  SHUTDOWN_DELAY_SECONDS: z.coerce
    .number()
    .int()
    .min(0)
    .max(600)
    .default(1)
    .describe(
      'How long the API still answers after SIGTERM, SIGHUP or Ctrl-C while its readiness says no and every answer closes its connection; behind a balancer longer than the time between two of its checks',
    ),
  CORS_ORIGINS: z
    .string()
    .transform((text, context) => {
      try {
        return parseOrigins(text);
      } catch (error) {
        context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : String(error) });
        return z.NEVER;
      }
    })
    .optional()
    .describe(
      'Origins whose pages may call the API from a browser, separated by commas, such as https://shop.example.com; * for every origin. Without it a page on another origin needs a proxy',
    ),
  WEBHOOK_ALLOWED_NETWORKS: z
    .string()
    .transform((text, context) => {
      try {
        return parseNetworks(text);
      } catch (error) {
        context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : String(error) });
        return z.NEVER;
      }
    })
    .optional()
    .describe(
      'Networks of your own that webhooks may reach, over http too and at any port, separated by commas, such as 10.1.0.0/16. Without it they reach public addresses only, over https',
    ),
  LIVE_MAX_SOCKETS: z.coerce
    .number()
    .int()
    .min(1)
    .max(100_000)
    .default(10_000)
    .describe('Sockets of the live feed that one API process serves at once; more are answered 503'),
  LIVE_MAX_SOCKETS_PER_ORGANIZATION: z.coerce
    .number()
    .int()
    .min(1)
    .max(100_000)
    .optional()
    .describe(
      'Sockets of the live feed that one API process serves one organization at once, so that others find a place; half of LIVE_MAX_SOCKETS when absent. With a single organization it may be all of them',
    ),
  LOG_LEVEL: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'silent']).default('info').describe('Least severity that is logged'),
  TRUST_PROXY: z.coerce.number().int().min(0).max(10).default(0).describe('Number of reverse proxies in front, for the client address'),
} as const;

const schema = z.object(SETTINGS);
export type Config = z.infer<typeof schema>;

/** Nest's injection token for the Config of this process. */
export const CONFIG = Symbol('Config');

/** The message names all wrong settings at once. */
export class InvalidConfiguration extends Error {
  override readonly name = 'InvalidConfiguration';
}

/**
 * The only reader of the environment. An empty variable counts as absent.
 * @throws InvalidConfiguration
 */
export function readConfig(environment: Readonly<Record<string, string | undefined>> = process.env): Config {
  const given = Object.fromEntries(Object.keys(SETTINGS).map((name) => [name, environment[name] === '' ? undefined : environment[name]]));
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  throw new InvalidConfiguration(parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('\n'));
}

/** The environment of a child process: that of this process, with other values for some of its settings; '' removes one. */
export function environmentWith(changes: Readonly<Partial<Record<keyof typeof SETTINGS, string>>>): Record<string, string | undefined> {
  return { ...process.env, ...changes };
}

/** The current settings for the log. Secrets are shown as set or not set, addresses without their passwords. */
export function describeConfig(config: Config): Record<string, unknown> {
  const secret = (value: string | undefined) => (value === undefined ? 'not set' : 'set');
  const address = (value: string | undefined) =>
    value?.replace(/\/\/[^@/]*@/, '//…@').replace(/([?&][^=&]*(?:password|key|secret)[^=&]*=)[^&]*/gi, '$1…');
  return {
    ...config,
    DATABASE_URL: address(config.DATABASE_URL) ?? 'embedded',
    EVENTSTORE_URL: address(config.EVENTSTORE_URL) ?? 'not set: the log is in PostgreSQL',
    MASTER_KEY: secret(config.MASTER_KEY),
    BOOTSTRAP_API_KEY: secret(config.BOOTSTRAP_API_KEY),
  };
}
