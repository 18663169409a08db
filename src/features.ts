import { analyticsFeature } from './analytics/analytics.feature.js';
import { apiKeysFeature } from './api-keys/api-key.feature.js';
import { auditFeature } from './audit/audit.feature.js';
import { automationFeature } from './automation/automation.feature.js';
import { cannedResponsesFeature } from './canned-responses/canned-response.feature.js';
import { claimAggregate } from './commands/claim.js';
import { companiesFeature } from './companies/company.feature.js';
import { consoleFeature } from './console/console.feature.js';
import { conversationsFeature } from './conversations/conversation.feature.js';
import { headAggregate } from './event-store/log-head.js';
import { type Feature, type FeatureStream, streamOf } from './feature.js';
import { inboxesFeature } from './inboxes/inbox.feature.js';
import { liveFeature } from './live/live.feature.js';
import { operationsFeature } from './operations/operations.feature.js';
import { organizationsFeature } from './organizations/organization.feature.js';
import type { AuditedResource } from './read-models/audited-resource.js';
import type { ReadTable } from './read-models/table.js';
import { searchFeature } from './search/search.feature.js';
import { teamFeature } from './team/assignee.feature.js';
import { viewsFeature } from './views/view.feature.js';
import { visitorsFeature } from './visitors/visitor.feature.js';
import { webhooksFeature } from './webhooks/webhook.feature.js';

/** Every feature of this build. */
export const FEATURES: readonly Feature[] = [
  conversationsFeature,
  visitorsFeature,
  organizationsFeature,
  companiesFeature,
  inboxesFeature,
  teamFeature,
  cannedResponsesFeature,
  viewsFeature,
  webhooksFeature,
  automationFeature,
  apiKeysFeature,
  auditFeature,
  liveFeature,
  analyticsFeature,
  searchFeature,
  operationsFeature,
  consoleFeature,
];

/** Every kind of stream by its name: those of the features, the claims on keys, and the signed heads of the log. */
export const STREAMS: ReadonlyMap<string, FeatureStream> = byKind([
  ...FEATURES.flatMap(({ streams }) => streams),
  streamOf(claimAggregate, { unreadable: 'stops' }),
  streamOf(headAggregate, { unreadable: 'stops' }),
]);

/** The name of each kind of stream in the organization's feed of events. */
export const TOLD_STREAMS: ReadonlyMap<string, string> = new Map(
  [...STREAMS].flatMap(([kind, { toldAs }]) => (toldAs === undefined ? [] : [[kind, toldAs] as const])),
);

/** The types of the events in that feed, each once: an inbox and a conversation both have an InboxChanged. */
export const TOLD_TYPES: readonly string[] = [
  ...new Set([...STREAMS.values()].flatMap(({ toldAs, aggregate }) => (toldAs === undefined ? [] : Object.keys(aggregate.codec.versions)))),
];

/** Every kind of resource whose past is told. */
export async function auditedResources(): Promise<readonly AuditedResource[]> {
  const found: AuditedResource[] = [];
  for (const { histories } of FEATURES) if (histories !== undefined) found.push(...(await histories()));
  return found;
}

/** Every table of every read model. */
export const READ_TABLES: readonly ReadTable[] = FEATURES.flatMap(({ tables }) => tables);

/** @throws Error when two features have the same kind of stream */
function byKind(streams: readonly FeatureStream[]): ReadonlyMap<string, FeatureStream> {
  const found = new Map<string, FeatureStream>();
  for (const stream of streams) {
    const { kind } = stream.aggregate;
    if (found.has(kind)) throw new Error(`two features have streams of the kind ${kind}`);
    found.set(kind, stream);
  }
  return found;
}
