import { z } from 'zod';
import type { Aggregate } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';
import { ThreadlogError } from '../errors.js';

/*
 * The tenant. Only its stream says which inbox is the default, so that two requests can never leave it with two defaults or with none.
 * The stream's id is the organization's id.
 */
export type OrganizationEvent =
  | { readonly type: 'OrganizationCreated'; readonly data: { readonly name: string } }
  | { readonly type: 'DefaultInboxChanged'; readonly data: { readonly inboxId: string } }
  /** The inbox, at this revision, is about to be archived and can no longer become the default. */
  | { readonly type: 'InboxRetired'; readonly data: { readonly inboxId: string; readonly inboxRevision: number } }
  /** The inbox was unarchived. */
  | { readonly type: 'InboxReinstated'; readonly data: { readonly inboxId: string } };

export interface Organization {
  readonly exists: boolean;
  readonly name: string;
  /** Null only while the organization is being created. */
  readonly defaultInboxId: string | null;
  readonly retiredInboxes: readonly { readonly inboxId: string; readonly inboxRevision: number }[];
  readonly createdAt: string;
  readonly updatedAt: string;
}

export const organizationAggregate: Aggregate<Organization, OrganizationEvent> = {
  kind: 'organization',
  codec: schemaCodec<OrganizationEvent>(
    {
      OrganizationCreated: [z.object({ name: z.string() })],
      DefaultInboxChanged: [z.object({ inboxId: z.string() })],
      InboxRetired: [z.object({ inboxId: z.string() }), z.object({ inboxId: z.string(), inboxRevision: z.number().int() })],
      InboxReinstated: [z.object({ inboxId: z.string() })],
    },
    {},
    // The revision was not recorded; every revision at which an inbox is unarchived is later.
    { InboxRetired: [(data) => ({ ...(data as { inboxId: string }), inboxRevision: 0 })] },
  ),
  initial: { exists: false, name: '', defaultInboxId: null, retiredInboxes: [], createdAt: '', updatedAt: '' },
  evolve: (before, event) => {
    const at = event.metadata.occurredAt;
    switch (event.type) {
      case 'OrganizationCreated':
        return { ...before, exists: true, name: event.data.name, createdAt: at, updatedAt: at };
      case 'DefaultInboxChanged':
        return { ...before, defaultInboxId: event.data.inboxId, updatedAt: at };
      case 'InboxRetired':
        return { ...before, retiredInboxes: [...without(before, event.data.inboxId), event.data], updatedAt: at };
      case 'InboxReinstated':
        return { ...before, retiredInboxes: without(before, event.data.inboxId), updatedAt: at };
    }
  },
};

const without = ({ retiredInboxes }: Organization, id: string) => retiredInboxes.filter(({ inboxId }) => inboxId !== id);
const retirementOf = ({ retiredInboxes }: Organization, id: string) => retiredInboxes.find(({ inboxId }) => inboxId === id);

export type OrganizationDecision = (o: Organization) => readonly OrganizationEvent[];

export function createOrganization(name: string): OrganizationDecision {
  return (o) => (o.exists ? [] : [{ type: 'OrganizationCreated', data: { name } }]);
}

/**
 * @param inboxRevision at which the inbox existed and was not archived. A retirement for an earlier revision can no longer be completed:
 *   its archiving was refused or undone
 * @throws ThreadlogError resource_archived for an inbox that is being archived
 */
export function changeDefaultInbox(inboxId: string, inboxRevision: number): OrganizationDecision {
  return (o) => {
    if (!o.exists) throw new ThreadlogError('not_found');
    if (o.defaultInboxId === inboxId) return [];
    if ((retirementOf(o, inboxId)?.inboxRevision ?? -1) >= inboxRevision)
      throw new ThreadlogError('resource_archived', 'an archived inbox cannot become the default');
    return [{ type: 'DefaultInboxChanged', data: { inboxId } }];
  };
}

/**
 * Precedes the inbox's own InboxArchived, so that no racing request can make the inbox the default in between.
 * @param inboxRevision of the inbox that is about to be archived; the archiving must fail if the inbox has changed since
 */
export function retireInbox(inboxId: string, inboxRevision: number): OrganizationDecision {
  return (o) => {
    if (!o.exists) throw new ThreadlogError('not_found');
    if (o.defaultInboxId === inboxId) throw new ThreadlogError('default_inbox_required', 'make another inbox the default first');
    const retired = retirementOf(o, inboxId);
    return retired !== undefined && retired.inboxRevision >= inboxRevision
      ? []
      : [{ type: 'InboxRetired', data: { inboxId, inboxRevision } }];
  };
}

/**
 * Follows the inbox's own InboxUnarchived. A retirement for a later revision stays: it belongs to a request that archives the inbox again.
 * @param backAt revision of the InboxUnarchived
 */
export function reinstateInbox(inboxId: string, backAt: number): OrganizationDecision {
  return (o) => {
    if (!o.exists) throw new ThreadlogError('not_found');
    const retired = retirementOf(o, inboxId);
    return retired !== undefined && retired.inboxRevision < backAt ? [{ type: 'InboxReinstated', data: { inboxId } }] : [];
  };
}
