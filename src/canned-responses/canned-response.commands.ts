import { Inject, Injectable } from '@nestjs/common';
import { Command } from '@nestjs/cqrs';
import { claimAggregate } from '../commands/claim.js';
import { Claims, PlanOvertaken } from '../commands/claims.js';
import { type CommandContext, everAgain, step } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import { derivedId } from '../ids.js';
import { VisitorKeys } from '../security/visitor-keys.js';
import {
  archiveCannedResponse,
  type CannedResponse,
  cannedResponseAggregate,
  type CannedResponseDecision,
  type CannedResponseEvent,
  type CannedResponseFields,
  changeCannedResponse,
  createCannedResponse,
  heldAfter,
  heldShortcut,
  unarchiveCannedResponse,
  voidShortcutClaim,
} from './canned-response.js';

/** Attempts that the log may overtake before the client gets an error. */
const ATTEMPTS = 8;
/** How often to look at another request's unused claim before revoking it, and the first pause between looks (ms, doubling). */
const LOOKS = 5;
const FIRST_LOOK_MS = 10;

/** The answer of every command on a canned response. */
export interface CannedResponseChanged extends Transacted<CannedResponse, CannedResponseEvent> {
  readonly id: string;
}

/**
 * Writes canned responses so that at most one of them has a shortcut (archived ones apart), also among racing requests and after a crash
 * at any step, by the rules of Claims. A claim whose response lacks the shortcut and has no later event gets a moment, since most are in
 * flight. Then an event in that response's own stream voids the claim; a request that is still about to use it must decide again.
 */
@Injectable()
export class CannedResponseWriter {
  private readonly claims: Claims;

  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(VisitorKeys) keys: VisitorKeys,
  ) {
    this.claims = new Claims(transactor, keys);
  }

  /** @throws ThreadlogError shortcut_taken and what the decision throws */
  async write(context: CommandContext, id: string, decision: CannedResponseDecision): Promise<CannedResponseChanged> {
    const plan: { wanted: string | null } = { wanted: null };
    for (let attempt = 0; attempt < ATTEMPTS; attempt++)
      try {
        return await this.claims.holding(context, id, async (hold) => {
          const done = await this.transactor.transact(
            cannedResponseAggregate,
            id,
            context,
            (state) => decision(state),
            async (state) => {
              hold.left.clear();
              // A change that will be refused claims nothing, and a change that keeps the shortcut needs no claim.
              const before = heldShortcut(state);
              const wanted = heldAfter(state, decision(state));
              plan.wanted = wanted;
              if (wanted === before) return;
              if (wanted !== null) await this.claims.take(context, id, [{ kind: 'shortcut', value: wanted }], hold);
              if (before !== null) await this.claims.noteLeft(context, id, 'shortcut', before, hold.left);
            },
          );
          return { ...done, id };
        });
      } catch (error) {
        if (!(error instanceof PlanOvertaken)) throw error;
        if (plan.wanted !== null && (await this.isTaken(context, plan.wanted))) throw new ThreadlogError('shortcut_taken');
      }
    throw new ThreadlogError('concurrent_changes', `gave up after ${ATTEMPTS} attempts`, { retryAfterSeconds: 1 });
  }

  /** Whether a response has the shortcut. Releases a claim that nobody will use any more. */
  private async isTaken(context: CommandContext, shortcut: string): Promise<boolean> {
    const { organizationId } = context;
    const claimId = await this.claims.idOf(organizationId, 'shortcut', shortcut);
    for (let look = 0; ; look++) {
      const claimed = await this.transactor.load(claimAggregate, organizationId, claimId);
      const owner = claimed?.state.owner ?? null;
      if (claimed === undefined || owner === null) return false;
      const holder = await this.transactor.load(cannedResponseAggregate, organizationId, owner);
      if (holder !== undefined && heldShortcut(holder.state) === shortcut) return true;
      if (holder === undefined || holder.position < claimed.position) {
        if (look < LOOKS) {
          // Random, so that two requests that wait for each other do not keep waiting in step.
          await new Promise((resolve) => setTimeout(resolve, FIRST_LOOK_MS * 2 ** look * (0.5 + Math.random())));
          continue;
        }
        const voided = await this.transactor.transact(cannedResponseAggregate, owner, step(context), voidShortcutClaim(shortcut));
        if (voided.outcome === 'unchanged') return true;
      }
      await this.claims.giveBack(context, owner, new Map([[claimId, claimed.revision]]));
      return false;
    }
  }
}

/** @throws ThreadlogError shortcut_taken, unknown_variable */
export class CreateCannedResponse extends Command<CannedResponseChanged> {
  constructor(
    readonly context: CommandContext,
    readonly given: CannedResponseFields,
  ) {
    super();
  }
}

/** Sets the named fields. @throws ThreadlogError not_found, resource_archived, shortcut_taken, unknown_variable */
export class ChangeCannedResponse extends Command<CannedResponseChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly changes: Partial<CannedResponseFields>,
  ) {
    super();
  }
}

/** Archives it and frees its shortcut. @throws ThreadlogError not_found */
export class ArchiveCannedResponse extends Command<CannedResponseChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

/** Unarchives it and claims its shortcut again. @throws ThreadlogError not_found, shortcut_taken */
export class UnarchiveCannedResponse extends Command<CannedResponseChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

const handled = handledBy(CannedResponseWriter);

/** The handlers of this file, for the module. */
export const cannedResponseCommandHandlers = [
  handled(CreateCannedResponse, (writer, { context, given }) =>
    writer.write(everAgain(context), derivedId('cannedresponse', context.commandId), createCannedResponse(given)),
  ),
  handled(ChangeCannedResponse, (writer, { context, id, changes }) => writer.write(context, id, changeCannedResponse(changes))),
  handled(ArchiveCannedResponse, (writer, { context, id }) => writer.write(context, id, archiveCannedResponse())),
  handled(UnarchiveCannedResponse, (writer, { context, id }) => writer.write(context, id, unarchiveCannedResponse())),
];
