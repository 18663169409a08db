import { Inject, Injectable } from '@nestjs/common';
import type { Kysely } from 'kysely';
import { ApiKeyWriter } from '../api-keys/api-key.writer.js';
import type { CommandContext } from '../commands/command-context.js';
import { Transactor } from '../commands/transactor.js';
import { createInbox, inboxAggregate } from '../inboxes/inbox.js';
import { secretHash } from '../security/secret-hash.js';
import { DATABASE, type Database } from '../database/database.js';
import { derivedId, randomIds } from '../ids.js';
import { VisitorKeys } from '../security/visitor-keys.js';
import { changeDefaultInbox, createOrganization, organizationAggregate } from './organization.js';

export interface CreatedOrganization {
  readonly organizationId: string;
  /** Shown only once. */
  readonly adminKey: string;
  readonly adminKeyId: string;
}

export interface ListedOrganization {
  readonly id: string;
  readonly name: string;
  /** ISO instant. */
  readonly createdAt: string;
}

/** The id is part of stream names, where a dot ends it. */
const ORGANIZATION_ID = /^[a-z0-9][a-z0-9-]{0,63}$/;

/** Creates tenants, for the command line and the first start. No route does: a key belongs to one organization and sees no other. */
@Injectable()
export class OrganizationWriter {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
    @Inject(ApiKeyWriter) private readonly apiKeys: ApiKeyWriter,
  ) {}

  /**
   * The organization with its secret, its default inbox and an admin key. A second call with the same id after a crash creates what is
   * missing and leaves the rest as it is, including the name and the default inbox.
   * @param options id: lower-case letters, digits and dashes; adminKey: a key chosen elsewhere, made once; without it each call makes one;
   *   beforeKey: runs once the organization takes commands. The key comes last: a caller without a key knows that setup is incomplete
   */
  async createOrganization(
    name: string,
    options: { id?: string; adminKey?: string; beforeKey?: (organizationId: string) => Promise<void> } = {},
  ): Promise<CreatedOrganization> {
    const organizationId = options.id ?? randomIds.next();
    if (!ORGANIZATION_ID.test(organizationId))
      throw new Error('an organization id is 1 to 64 of a-z 0-9 -, and does not begin with a dash');
    const step = (...parts: readonly string[]) =>
      systemContext(organizationId, derivedId('command', 'create-organization', organizationId, ...parts));

    // Before the first event, so that listOrganizations and keyed hashes find the secret whenever the organization exists.
    await this.keys.hashKey(organizationId);
    await this.transactor.transact(organizationAggregate, organizationId, step('organization'), (state) => createOrganization(name)(state));
    const inboxId = derivedId('inbox', organizationId);
    const { revision } = await this.transactor.transact(inboxAggregate, inboxId, step('inbox'), (state) =>
      createInbox({ name: 'Inbox' })(state),
    );
    // Only while there is no default: an admin may have chosen another inbox by now.
    await this.transactor.transact(organizationAggregate, organizationId, step('default inbox'), (state) =>
      state.defaultInboxId === null ? changeDefaultInbox(inboxId, revision)(state) : [],
    );
    await options.beforeKey?.(organizationId);
    const { adminKey } = options;
    const context =
      adminKey === undefined ? systemContext(organizationId, randomIds.next()) : step('admin key', secretHash(adminKey).toString('hex'));
    const { id, key } = await this.apiKeys.create(context, { name: 'Admin', role: 'admin' }, adminKey);
    return { organizationId, adminKey: key, adminKeyId: id };
  }

  /** Whether the organization ever had a key, revoked or not: making it is the last step of createOrganization. */
  async hasKey(organizationId: string): Promise<boolean> {
    const row = await this.database
      .selectFrom('keep.api_keys')
      .select('id')
      .where('organization_id', '=', organizationId)
      .limit(1)
      .executeTakeFirst();
    return row !== undefined;
  }

  /** Oldest first. Reads one stream for each; an installation has few organizations. */
  async listOrganizations(): Promise<ListedOrganization[]> {
    const rows = await this.database
      .selectFrom('keep.organization_secrets')
      .select('organization_id')
      .where('name', '=', 'hash')
      .orderBy('created_at')
      .orderBy('organization_id')
      .execute();
    const organizations: ListedOrganization[] = [];
    for (const { organization_id: id } of rows) {
      const found = await this.transactor.load(organizationAggregate, id, id);
      if (found !== undefined) organizations.push({ id, name: found.state.name, createdAt: found.state.createdAt });
    }
    return organizations;
  }
}

/** The operator, at the machine itself. */
export function systemContext(organizationId: string, commandId: string): CommandContext {
  return { organizationId, actor: { type: 'system', id: 'operator' }, commandId, requestHash: '', correlationId: commandId };
}
