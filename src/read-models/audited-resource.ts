import type { Transactor } from '../commands/transactor.js';
import type { Aggregate, DomainEvent, Recorded } from '../event-store/aggregate.js';
import type { DataKey } from '../security/sealing.js';
import type { CallerRole, Role } from '../security/roles.js';

/** Who asks for a past, and with which role. */
export interface HistoryCaller {
  readonly self: { readonly type: 'agent' | 'apiKey'; readonly id: string };
  readonly role: CallerRole;
}

/** A resource at one of its revisions. */
export interface ResourceAt<S> {
  readonly organizationId: string;
  readonly id: string;
  readonly state: S;
  readonly revision: number;
  /** Opens the personal fields. Undefined when none are sealed, or when the key was destroyed. */
  readonly key: DataKey | undefined;
}

/**
 * A kind of resource whose past the API and the command line tell: its events, the comparison of two revisions, the proof of its chain. A
 * feature registers it, and everything else follows.
 */
export interface AuditedResource<S = unknown, E extends DomainEvent = DomainEvent> {
  /** The first step of its routes, such as `companies`. */
  readonly path: string;
  /** True when the path names one resource by itself, the caller's organization. */
  readonly isSingle?: true;
  /** Its name in sentences, such as `a company`. */
  readonly called: string;
  /** What its events tell, in one or two sentences. */
  readonly events: string;
  /** Who may read its events and compare its revisions. */
  readonly roles: readonly Role[];
  readonly aggregate: Aggregate<S, E>;
  /** Unseals the personal fields of an event; absent where no field is sealed. */
  readonly unseal?: (event: Recorded<E>, key: DataKey | undefined) => Recorded<DomainEvent>;
  /**
   * False when the stream holds another kind of resource, such as a team under the path of agents, and when the caller may not know of it.
   * The state is the current one: who sees a resource now sees its past.
   */
  readonly shows?: (state: S, by: HistoryCaller) => boolean;
  /**
   * Its answer at a revision, as `GET` of it has it, without what other streams decide and without long lists. Secrets are never in it.
   * @param others loads what an answer shows of other streams, as they are now
   */
  readonly answer: (at: ResourceAt<S>, others: Pick<Transactor, 'load'>) => object | Promise<object>;
}

/** Registers a kind of resource. */
export function auditedResource<S, E extends DomainEvent>(resource: AuditedResource<S, E>): AuditedResource {
  // The cast is safe, since the stream's events and states come from its own aggregate.
  return resource as unknown as AuditedResource;
}
