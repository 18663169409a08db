import { z } from 'zod';
import type { Aggregate } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';

/**
 * A claim makes a changeable key (a visitor's userId or e-mail, a canned response's shortcut) unique in its organization: one stream per
 * key, named by a keyed hash of the key, held by one owner at a time. The claim is written before the owner's stream.
 */
export type ClaimEvent =
  | { readonly type: 'Claimed'; readonly data: { readonly owner: string } }
  | { readonly type: 'Released'; readonly data: Record<string, never> };

export interface Claim {
  readonly owner: string | null;
}

export const claimAggregate: Aggregate<Claim, ClaimEvent> = {
  kind: 'claim',
  codec: schemaCodec<ClaimEvent>({ Claimed: [z.object({ owner: z.string() })], Released: [z.object({})] }),
  initial: { owner: null },
  evolve: (_, event) => ({ owner: event.type === 'Claimed' ? event.data.owner : null }),
};

/**
 * Takes the key when nobody has it, and takes it again when this owner already has it: the new revision stops commands that are about to
 * release the claim as left behind. The resulting state shows who has the key.
 */
export const claim =
  (owner: string) =>
  (c: Claim): readonly ClaimEvent[] =>
    c.owner === null || c.owner === owner ? [{ type: 'Claimed', data: { owner } }] : [];

/** Gives the key back if this owner has it. */
export const release =
  (owner: string) =>
  (c: Claim): readonly ClaimEvent[] =>
    c.owner === owner ? [{ type: 'Released', data: {} }] : [];
