import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, sql } from 'kysely';
import { aside, type CommandContext, isExpected } from '../commands/command-context.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { ApiKeyLookup, newApiKey } from '../security/api-key-lookup.js';
import { secretHash } from '../security/secret-hash.js';
import { DATABASE, type Database } from '../database/database.js';
import { ThreadlogError } from '../errors.js';
import { secretOf } from '../commands/idempotency.js';
import { derivedId } from '../ids.js';
import type { Role } from '../security/roles.js';
import { MasterKey } from '../security/sealing.js';
import { AssigneeReader } from '../team/assignee.reader.js';
import { assigneeAggregate } from '../team/assignee.js';
import { type ApiKey, apiKeyAggregate, type ApiKeyChanges, type ApiKeyEvent, changeKey, createKey, revokeKey } from './api-key.js';

/** How many of a key's characters may be shown later: enough to recognize the key, far too few to guess the rest. */
const PREFIX_LENGTH = 8;

export interface ApiKeyChanged extends Transacted<ApiKey, ApiKeyEvent> {
  readonly id: string;
}

export interface ApiKeyInput {
  readonly name: string;
  readonly role: Role;
  readonly agentId?: string;
  /** ISO instant. */
  readonly expiresAt?: string;
  readonly rateLimitPerMinute?: number;
}

/**
 * Makes and revokes API keys, for the routes and for the command line. The log tells who made which key; keep.api_keys decides whether a
 * key is accepted. Granting writes the event first and then the row, restricting writes the row first: so a crash in between never leaves
 * an accepted key that nobody made.
 */
@Injectable()
export class ApiKeyWriter {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(ApiKeyLookup) private readonly apiKeys: ApiKeyLookup,
    @Inject(MasterKey) private readonly master: MasterKey,
    @Inject(AssigneeReader) private readonly assignees: AssigneeReader,
  ) {}

  /**
   * Answers the key itself, which is not stored. A retry with the same Idempotency-Key gets the same key for 24 h.
   * @param given a key that was chosen elsewhere, such as BOOTSTRAP_API_KEY; its id follows from it, so making it twice makes one key
   * @throws ThreadlogError unknown_agent, resource_archived for an agent who is archived, expiry_in_past, idempotency_key_reused
   */
  async create(context: CommandContext, input: ApiKeyInput, given?: string): Promise<ApiKeyChanged & { readonly key: string }> {
    const { id, secret: key } =
      given === undefined
        ? await secretOf(this.database, this.master, context, 'apikey', newApiKey)
        : { id: this.idOf(context, given), secret: given };
    const expiresAt = input.expiresAt === undefined ? undefined : new Date(input.expiresAt).toISOString();
    const { agentId, rateLimitPerMinute } = input;
    const fields = {
      name: input.name,
      role: input.role,
      ...(agentId === undefined ? {} : { agentId }),
      prefix: key.slice(0, PREFIX_LENGTH),
      ...(expiresAt === undefined ? {} : { expiresAt }),
      ...(rateLimitPerMinute === undefined ? {} : { rateLimitPerMinute }),
    };
    const done = await this.transactor.transact(
      apiKeyAggregate,
      id,
      context,
      (state, _, now) => createKey(fields, now)(state),
      async () => {
        if (agentId !== undefined) await this.assignees.requireAgents(context.organizationId, [agentId]);
        return undefined;
      },
    );
    // The event decides, even when the retry carries other values (a chosen key whose name changed in the meantime).
    const { name, role, agentId: boundTo, rateLimitPerMinute: ownLimit, expiresAt: until } = done.state;
    await this.database
      .insertInto('keep.api_keys')
      .values({
        organization_id: context.organizationId,
        id,
        hash: secretHash(key),
        role,
        name,
        agent_id: boundTo,
        rate_limit_per_minute: ownLimit,
        expires_at: until === null ? null : new Date(until),
        revoked_at: null,
      })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    // A request that revoked the key between its event and its row found no row to end.
    const current = await this.transactor.load(apiKeyAggregate, context.organizationId, id);
    if (current !== undefined && current.state.revokedAt !== null) await this.endRow(context.organizationId, id);
    if (given !== undefined) await this.requireOwn(context.organizationId, id, given);
    // A request that archived the agent in the meantime found no row either, and the cached agent may be a second old.
    const agent = boundTo === null ? undefined : await this.transactor.load(assigneeAggregate, context.organizationId, boundTo);
    if (agent?.state.archived === true) {
      // On the same stream, so the command id must be another; derived, so that a retry repeats both.
      const commandId = derivedId('command', context.commandId, 'revoke');
      const revoked = await this.revoke({ ...aside(context), commandId, causationId: context.commandId }, id);
      // Answered unchanged: archiving the agent revoked the key by itself, perhaps long after the first answer, which stays as it was.
      if (revoked.outcome !== 'unchanged') return { ...revoked, key };
    }
    return { ...done, id, key };
  }

  /** Messages that the key sends without an agent carry the name. @throws ThreadlogError not_found, resource_archived */
  async change(context: CommandContext, id: string, changes: ApiKeyChanges): Promise<ApiKeyChanged> {
    const done = await this.transactor.transact(apiKeyAggregate, id, context, (state) => changeKey(changes)(state));
    await this.database
      .updateTable('keep.api_keys')
      .set({ name: done.state.name, rate_limit_per_minute: done.state.rateLimitPerMinute })
      .where('organization_id', '=', context.organizationId)
      .where('id', '=', id)
      .execute();
    this.apiKeys.forget(id);
    return { ...done, id };
  }

  /** Ends the key at once in this process, and within a second in others. @throws ThreadlogError not_found, revision_mismatch */
  async revoke(context: CommandContext, id: string): Promise<ApiKeyChanged> {
    const { organizationId, ifMatch } = context;
    // Checked before the row is written: a refused request must not end a key.
    const known = await this.transactor.load(apiKeyAggregate, organizationId, id);
    if (known === undefined) throw new ThreadlogError('not_found');
    if (!isExpected(ifMatch, known.revision)) throw new ThreadlogError('revision_mismatch', `the revision is ${known.revision}`);
    const ended = await this.endRow(organizationId, id);
    const done = await this.transactor.transact(apiKeyAggregate, id, context, (state) => revokeKey()(state));
    // The row of a key that is being made may appear after the first look; its maker then looks at the event.
    if (!ended) await this.endRow(organizationId, id);
    return { ...done, id };
  }

  private async endRow(organizationId: string, id: string): Promise<boolean> {
    const updated = await this.database
      .updateTable('keep.api_keys')
      .set({ revoked_at: sql<Date>`now()` })
      .where('organization_id', '=', organizationId)
      .where('id', '=', id)
      .where('revoked_at', 'is', null)
      .executeTakeFirst();
    this.apiKeys.forget(id);
    return updated.numUpdatedRows > 0n;
  }

  /**
   * Revokes every key of an archived agent, and does nothing for another agent. Safe to repeat: it completes what a crash left half done, the
   * missing event of a row that was ended as well.
   */
  async revokeOfAgent(context: CommandContext, agentId: string): Promise<void> {
    const { organizationId } = context;
    const rows = await this.database
      .selectFrom('keep.api_keys')
      .select(['id', 'revoked_at'])
      .where('organization_id', '=', organizationId)
      .where('agent_id', '=', agentId)
      .execute();
    // After the look at the keys, so that no key that was made after an unarchiving is among them.
    if ((await this.transactor.load(assigneeAggregate, organizationId, agentId))?.state.archived !== true) return;
    for (const { id, revoked_at: ended } of rows) {
      const key = await this.transactor.load(apiKeyAggregate, organizationId, id);
      if (ended === null || key?.state.revokedAt === null) await this.revoke(aside(context), id);
    }
  }

  private idOf(context: CommandContext, key: string): string {
    return derivedId('apikey', context.organizationId, secretHash(key).toString('hex'));
  }

  /** A chosen key may already belong to another organization, and then it opens that organization. */
  private async requireOwn(organizationId: string, id: string, key: string): Promise<void> {
    const row = await this.database
      .selectFrom('keep.api_keys')
      .select(['organization_id', 'id'])
      .where('hash', '=', secretHash(key))
      .executeTakeFirst();
    if (row?.organization_id !== organizationId || row.id !== id) throw new Error('the chosen API key belongs to another organization');
  }
}
