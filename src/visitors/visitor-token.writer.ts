import { Inject, Injectable } from '@nestjs/common';
import type { Position } from '../event-store/event-store.js';
import { aside, assertNotRefused, type CommandContext } from '../commands/command-context.js';
import { Transactor } from '../commands/transactor.js';
import type { Principal } from '../security/api-key-lookup.js';
import type { VisitorTokenReader } from '../security/callers.js';
import { CLOCK, type Clock } from '../clock.js';
import { ThreadlogError } from '../errors.js';
import { KeptAnswers } from '../commands/idempotency.js';
import { derivedId, IDS, type Ids } from '../ids.js';
import { type VisitorTokenClaims, VisitorTokenSigner } from '../security/visitor-token-signer.js';
import { revokeTokens, visitorAggregate } from './visitor.js';
import { type KeyLeft, VisitorWriter } from './visitor.writer.js';
import type { PlainVisitor } from './visitor.sealing.js';

/** How long another process may still accept a token after its revocation (ms); the revoking process refuses it at once. */
const TOKEN_MAX_AGE_MS = 1_000;

export interface MintedToken {
  readonly token: string;
  readonly visitorId: string;
  /** ISO instant. */
  readonly expiresAt: string;
  /** The revision of the visitor's last event. */
  readonly position: Position;
  /** Keys in the request that belong to other visitors and stayed with them. */
  readonly left: readonly KeyLeft[];
}

/** What we keep for a keyed request: the claims without the signature, so that nobody can build the token without MASTER_KEY. */
interface KeptToken extends VisitorTokenClaims {
  /** Absent in rows of earlier builds, like `position`. */
  readonly left?: readonly KeyLeft[];
  readonly position?: Position;
}

export interface RevokedTokens {
  readonly visitorId: string;
  /** ISO instant. */
  readonly revokedAt: string;
  readonly position: Position;
}

/**
 * Makes, verifies and revokes the tokens with which a widget speaks for its visitor. No table holds tokens: a token is valid while its
 * signature is right, it has not expired, and the visitor's stream shows neither a revocation of the token nor an archived visitor. So
 * nothing needs cleaning up, auditors see who revoked, and every process that reads the log knows.
 */
@Injectable()
export class VisitorTokenWriter implements VisitorTokenReader {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(VisitorWriter) private readonly visitors: VisitorWriter,
    @Inject(VisitorTokenSigner) private readonly signer: VisitorTokenSigner,
    @Inject(KeptAnswers) private readonly kept: KeptAnswers,
    @Inject(CLOCK) private readonly clock: Clock,
    @Inject(IDS) private readonly ids: Ids,
  ) {}

  /**
   * A token for the visitor that is named as in POST /conversations, and created when there is none.
   * @param ttlSeconds how long the token is valid
   * @throws ThreadlogError what VisitorWriter.resolve() throws, idempotency_key_reused, revision_mismatch
   */
  async mint(context: CommandContext, given: PlainVisitor & { readonly id?: string }, ttlSeconds: number): Promise<MintedToken> {
    const { commandId, organizationId, ifMatch, keyed } = context;
    const keptId = derivedId('visitor token', commandId);
    let kept = keyed === true ? await this.kept.find<KeptToken>(keptId) : undefined;
    if (kept === undefined) {
      assertNotRefused(context);
      if (ifMatch !== undefined) throw new ThreadlogError('revision_mismatch', 'a new token has no revision');
      const { visitorId, left } = await this.visitors.resolve(aside(context), given);
      const { state, position } = await this.visitor(organizationId, visitorId);
      const expiresAt = this.clock.now() + ttlSeconds * 1_000;
      kept = { organizationId, visitorId, generation: state.tokenGeneration, expiresAt, id: this.ids.next(), left, position };
      if (keyed === true) kept = await this.kept.first<KeptToken>(keptId, context, kept);
    }
    const { left = [], position, ...claims } = kept;
    const { visitorId, expiresAt } = claims;
    return {
      token: this.signer.sign(claims),
      visitorId,
      expiresAt: new Date(expiresAt).toISOString(),
      position: position ?? (await this.visitor(organizationId, visitorId)).position,
      // jsonb returns the fields in another order.
      left: left.map(({ field, code }) => ({ field, code })),
    };
  }

  /** Ends every token that the visitor has now; tokens that are made later are valid. @throws ThreadlogError not_found */
  async revoke(context: CommandContext, visitorId: string): Promise<RevokedTokens> {
    const known = await this.transactor.load(visitorAggregate, context.organizationId, visitorId);
    if (known === undefined) throw new ThreadlogError('not_found');
    const done = await this.transactor.transact(visitorAggregate, visitorId, context, revokeTokens(known.state.tokenGeneration));
    return { visitorId, revokedAt: done.state.updatedAt, position: done.position };
  }

  recognize(token: string): Promise<Principal | undefined> | undefined {
    const claims = this.signer.read(token);
    return claims === undefined ? undefined : this.principal(claims);
  }

  holder({ organizationId, visitorId, generation, expiresAt }: Omit<VisitorTokenClaims, 'id'>): Principal {
    return {
      organizationId,
      keyId: `visitor ${organizationId} ${visitorId}`,
      keyName: '',
      role: 'visitor',
      agentId: null,
      visitorId,
      rateLimitPerMinute: null,
      expiresAt,
      tokenGeneration: generation,
    };
  }

  async isValid({ organizationId, visitorId, tokenGeneration, expiresAt }: Principal): Promise<boolean> {
    if (visitorId === null || (expiresAt !== null && expiresAt <= this.clock.now())) return false;
    const visitor = await this.transactor.load(visitorAggregate, organizationId, visitorId);
    return visitor !== undefined && !visitor.state.archived && visitor.state.tokenGeneration === tokenGeneration;
  }

  private async principal({ organizationId, visitorId, generation, expiresAt }: VisitorTokenClaims): Promise<Principal | undefined> {
    if (expiresAt <= this.clock.now()) return undefined;
    let visitor = await this.transactor.load(visitorAggregate, organizationId, visitorId, TOKEN_MAX_AGE_MS);
    // The token was made after a revocation that this process has not seen yet.
    if (visitor !== undefined && visitor.state.tokenGeneration < generation)
      visitor = await this.transactor.load(visitorAggregate, organizationId, visitorId);
    if (visitor === undefined || visitor.state.archived || visitor.state.tokenGeneration !== generation) return undefined;
    return this.holder({ organizationId, visitorId, generation, expiresAt });
  }

  private async visitor(organizationId: string, visitorId: string) {
    const known = await this.transactor.load(visitorAggregate, organizationId, visitorId);
    if (known === undefined) throw new Error('a visitor who was resolved is not there');
    return known;
  }
}
