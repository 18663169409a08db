import { isDeepStrictEqual } from 'node:util';
import { sql } from 'kysely';
import { apiKeyAggregate } from '../../src/api-keys/api-key.js';
import { cannedResponseAggregate, searchedShortcut } from '../../src/canned-responses/canned-response.js';
import { companiesTable } from '../../src/companies/company.table.js';
import {
  type Conversation,
  conversationAggregate,
  evolveConversation,
  initialConversation,
  PRIORITIES,
} from '../../src/conversations/conversation.js';
import { type Unsealed, unsealConversationEvent } from '../../src/conversations/conversation.sealing.js';
import { type Aggregate, decode, type DomainEvent, metadataOf } from '../../src/event-store/aggregate.js';
import { parseStreamName, type StoredEvent, type StreamKind } from '../../src/event-store/event-store.js';
import { READ_TABLES, STREAMS } from '../../src/features.js';
import { emailKey } from '../../src/texts/email-address.js';
import { type DataKey, ERASED } from '../../src/security/sealing.js';
import { attributeLabel, tagLabel } from '../../src/conversations/conversation.table.js';
import { CORE_GROUP } from '../../src/read-models/groups.js';
import { viewAggregate } from '../../src/views/view.js';
import { isFoldTable } from '../../src/read-models/fold-table.js';
import { evolveVisitor, initialVisitor, type Visitor, visitorAggregate } from '../../src/visitors/visitor.js';
import { unsealVisitorEvent } from '../../src/visitors/visitor.sealing.js';
import { webhookAggregate } from '../../src/webhooks/webhook.js';
import type { TestApi } from './api.js';
import { eventsAfter } from './events-after.js';
import { CORE_SCHEMA } from './read-schema.js';

type Row = Readonly<Record<string, unknown>>;

/** How the rows of one table follow from streams, told a second time and without the projections' own code. */
interface Model {
  readonly table: string;
  /** The row of one stream, but its organization, id and revision. */
  row(events: readonly StoredEvent[], key: DataKey | undefined): Row;
}

/** Columns that every row of people and settings has. */
const COMMON = companiesTable.columns;

const ms = (instant: string | null) => (instant === null ? null : Date.parse(instant));

/** Those whose columns do not simply repeat fields of the fold. */
const OTHERS: Readonly<Record<StreamKind, Model>> = {
  conversation: {
    table: 'conversations',
    row(events, key) {
      const c = events
        .map((event) => unsealConversationEvent(decode(conversationAggregate.codec, event), key))
        .reduce<Conversation<Unsealed>>(evolveConversation<Unsealed>, initialConversation);
      return {
        position: events.at(-1)?.position,
        key_id: c.keyId,
        visitor_id: c.visitorId,
        inbox_id: c.inboxId,
        channel: c.channel,
        company_id: c.companyId,
        status: c.status,
        priority: PRIORITIES.indexOf(c.priority),
        subject: c.subject,
        custom_attributes: c.customAttributes,
        assignee_id: c.assignee?.id ?? null,
        assignee_type: c.assignee?.type ?? null,
        assignee_name: c.assignee?.name ?? null,
        team_id: c.team?.id ?? null,
        team_name: c.team?.name ?? null,
        taken_from: c.takenFrom,
        tags: c.tags,
        labels: [
          ...c.tags.map(tagLabel),
          ...Object.entries(c.customAttributes)
            .map(([name, value]) => attributeLabel(name, String(value)))
            .sort(),
        ],
        previous_conversation_id: c.previousConversationId,
        snoozed_until: c.snooze?.until ?? null,
        snooze_revision: c.snooze?.revision ?? null,
        episode: c.episode,
        episode_ended: c.episodeEnded,
        rating: c.rating?.rating ?? null,
        rating_comment: c.rating?.comment ?? null,
        rating_episode: c.rating?.episode ?? null,
        waiting_since: ms(c.waitingSince),
        message_count: c.messageCount,
        last_message: c.lastMessage,
        created_at: ms(c.createdAt),
        updated_at: ms(c.updatedAt),
        shown_revision: c.shown.revision,
        shown_message_count: c.shown.messageCount,
        shown_last_message: c.lastMessage?.messageId === c.shown.lastMessage?.messageId ? null : c.shown.lastMessage,
        shown_updated_at: ms(c.shown.updatedAt),
      };
    },
  },
  visitor: {
    table: 'visitors',
    row(events, key) {
      const v = events
        .map((event) => unsealVisitorEvent(decode(visitorAggregate.codec, event), key))
        .reduce<Visitor<unknown>>(evolveVisitor<unknown>, initialVisitor);
      return {
        ...dated(v, v.name),
        archived: v.archived,
        name: v.name,
        user_id: v.userId,
        email: v.email,
        email_key: typeof v.email === 'string' && v.email !== ERASED ? emailKey(v.email) : null,
        phone: v.phone,
        avatar_url: v.avatarUrl,
        plan: v.plan,
        company_id: v.companyId,
      };
    },
  },
  apikey: settings('api_keys', apiKeyAggregate, (k) => ({ name: k.name, archived: k.revokedAt !== null, agent_id: k.agentId })),
  cannedresponse: settings('canned_responses', cannedResponseAggregate, (r) => ({
    name: r.title,
    archived: r.archived,
    shortcut: r.exists ? searchedShortcut(r.shortcut) : null,
  })),
  view: settings('saved_views', viewAggregate, ({ name, archived, shared, owner }) => ({
    name,
    archived,
    visible_to: shared ? 'everyone' : `${owner.type} ${owner.id}`,
  })),
  webhook: settings('webhooks', webhookAggregate, ({ url, archived }) => ({ name: url, archived })),
};

/** A model for every kind of stream that has a row. By default the columns have the names of the fields of the fold that they repeat. */
const MODELS: Readonly<Record<StreamKind, Model>> = {
  ...Object.fromEntries(
    READ_TABLES.filter(isFoldTable).map(({ name, columns, fold }) => {
      const aggregate = STREAMS.get(fold.kind)?.aggregate as Aggregate<{ createdAt: string; updatedAt: string }, DomainEvent>;
      const own = Object.keys(columns).filter((column) => ['name', 'archived'].includes(column) || !(column in COMMON));
      const fieldOf = (column: string) => column.replaceAll(/_(.)/g, (_, letter: string) => letter.toUpperCase());
      return [
        fold.kind,
        settings(name, aggregate, (state) => {
          const fields: Row = { archived: false, ...state };
          return Object.fromEntries(own.map((column) => [column, fields[fieldOf(column)]])) as Row & { name: string };
        }),
      ];
    }),
  ),
  ...OTHERS,
};

/** What every row of people and settings has, the whole fold included. */
function dated(state: { createdAt: string; updatedAt: string }, name: unknown): Row {
  return {
    created_at: ms(state.createdAt),
    updated_at: ms(state.updatedAt),
    sort_name: Array.from((typeof name === 'string' ? name : '').normalize('NFC').toLowerCase())
      .slice(0, 200)
      .join(''),
    state,
  };
}

function settings<S extends { createdAt: string; updatedAt: string }, E extends DomainEvent>(
  table: string,
  aggregate: Aggregate<S, E>,
  columns: (state: S) => Row & { name: string },
): Model {
  return {
    table,
    row(events) {
      const state = events.map((event) => decode(aggregate.codec, event)).reduce<S>(aggregate.evolve, aggregate.initial);
      return { ...dated(state, columns(state).name), ...columns(state) };
    },
  };
}

/**
 * Waits until the read models have reached the log's head, folds every stream of the organization, and holds the rows against the folds:
 * row by row and column by column. For the end of any test.
 * @throws Error that names every row and column that differs
 */
export async function expectReadModelsEqualFold(
  api: Pick<TestApi, 'backend' | 'organizationId'> & Partial<Pick<TestApi, 'beganAfter'>>,
  organizationId = api.organizationId,
): Promise<void> {
  const { store, checkpoints, database, keys } = api.backend;
  const head = await store.head();
  if (head === 'start' || head === api.beganAfter) return;
  if ((await checkpoints.waitFor(CORE_GROUP, head, 20_000)) !== 'reached') throw new Error(`the read models have not reached ${head}`);

  const streams = new Map<string, StoredEvent[]>();
  for (const event of await eventsAfter({ backend: api.backend, organizationId }, api.beganAfter ?? 'start')) {
    // What was written since has not been waited for.
    if (event.position > head) continue;
    const stream = streams.get(event.stream);
    if (stream === undefined) streams.set(event.stream, [event]);
    else stream.push(event);
  }

  const faults: string[] = [];
  const { rows: parked } = await sql<{ stream: string; error: string }>`select stream, error from keep.parked`.execute(database);
  for (const { stream, error } of parked)
    if (parseStreamName(stream)?.organizationId === organizationId) faults.push(`${stream} is parked: ${error}`);

  const expected = new Map<string, Map<string, Row>>(Object.values(MODELS).map(({ table }) => [table, new Map<string, Row>()] as const));
  for (const [name, events] of streams) {
    const { kind, id } = parseStreamName(name) ?? {};
    const model = kind === undefined ? undefined : MODELS[kind];
    if (model === undefined || id === undefined) continue;
    const keyId = events.map((event) => metadataOf(event).keyId).find((one) => one !== undefined);
    const key = keyId === undefined ? undefined : await keys.find(organizationId, keyId);
    expected.get(model.table)?.set(id, { revision: events.length - 1, ...model.row(events, key) });
  }
  for (const [table, folds] of expected) {
    const { rows } = await sql<Row & { id: string }>`
      select * from ${sql.table(`${CORE_SCHEMA}.${table}`)} where organization_id = ${organizationId}`.execute(database);
    const actual = new Map(rows.map((row) => [row.id, row]));
    for (const id of folds.keys()) if (!actual.has(id)) faults.push(`${table} ${id}: no row, though the log has the stream`);
    for (const [id, row] of actual) {
      const fold = folds.get(id);
      if (fold === undefined) faults.push(`${table} ${id}: a row, though the log has no such stream`);
      else faults.push(...differences(`${table} ${id}`, row, fold));
    }
  }
  faults.push(...(await feedFaults(api, organizationId, [...streams.values()].flat(), head)));
  faults.push(...(await turnFaults(api, organizationId, [...streams.values()].flat(), head)));
  if (faults.length > 0) throw new Error(`the read models are not the fold of the log:\n${faults.slice(0, 50).join('\n')}`);
}

/** There is a row for each assignment with a reason, and no other. */
async function turnFaults(
  { backend }: Pick<TestApi, 'backend'>,
  organizationId: string,
  events: readonly StoredEvent[],
  head: string,
): Promise<string[]> {
  const { rows } = await sql<Row & { position: string }>`
    select * from ${sql.table(`${CORE_SCHEMA}.automatic_assignments`)}
    where organization_id = ${organizationId} and position <= ${head}`.execute(backend.database);
  const expected = events.flatMap(({ stream, type, data, revision, position }) => {
    const name = parseStreamName(stream);
    if (name?.kind !== 'conversation' || type !== 'ConversationAssigned') return [];
    const { assignee, reason } = JSON.parse(data) as { assignee: { id: string }; reason?: { inboxId: string } };
    if (reason === undefined) return [];
    return [{ conversation_id: name.id, revision, position: position as string, inbox_id: reason.inboxId, agent_id: assignee.id }];
  });
  const written = new Map(rows.map((row) => [row.position, row]));
  return [
    ...expected.flatMap((row) => differences(`automatic_assignments ${row.position}`, written.get(row.position) ?? {}, row)),
    ...(rows.length > expected.length
      ? [`automatic_assignments: ${rows.length} rows, though ${expected.length} events have a reason`]
      : []),
  ];
}

/** The feed holds every event of the organization's own as it is stored, and nothing else. */
async function feedFaults(
  { backend, beganAfter }: Parameters<typeof expectReadModelsEqualFold>[0],
  organizationId: string,
  events: readonly StoredEvent[],
  head: string,
): Promise<string[]> {
  const { rows } = await sql<Row & { position: string }>`
    select * from ${sql.table(`${CORE_SCHEMA}.events`)}
    where organization_id = ${organizationId} and position <= ${head} and position > ${beganAfter === 'start' ? '' : (beganAfter ?? '')}`.execute(
    backend.database,
  );
  const actual = new Map(rows.map((row) => [row.position, row]));
  const expected = new Map(
    events.flatMap(({ stream, id, ...stored }) => {
      const name = parseStreamName(stream);
      if (name === undefined || name.kind === 'claim' || name.kind === 'head') return [];
      return [[stored.position as string, { ...stored, kind: name.kind, stream_id: name.id, event_id: id }] as const];
    }),
  );
  const positions = new Set([...actual.keys(), ...expected.keys()]);
  return [...positions].flatMap((position) => {
    const [row, event] = [actual.get(position), expected.get(position)];
    if (row === undefined) return [`events ${position}: no row, though the log has the event`];
    if (event === undefined) return [`events ${position}: a row, though the log has no such event`];
    return differences(`events ${position}`, row, event);
  });
}

function differences(name: string, row: Row, fold: Row): string[] {
  const columns = new Set([...Object.keys(row), ...Object.keys(fold)]);
  return [...columns].flatMap((column) => {
    if (column === 'organization_id' || column === 'id') return [];
    const plain = (value: unknown): unknown => (value === undefined ? undefined : JSON.parse(JSON.stringify(value)));
    const [is, should] = [plain(row[column]), plain(fold[column])];
    return isDeepStrictEqual(is, should) ? [] : [`${name}: ${column} is ${JSON.stringify(is)}, the fold says ${JSON.stringify(should)}`];
  });
}
