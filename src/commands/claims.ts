import { type CommandContext, step } from './command-context.js';
import type { Transactor } from './transactor.js';
import { ThreadlogError } from '../errors.js';
import { keyedHash, type VisitorKeys } from '../security/visitor-keys.js';
import { claim, claimAggregate, release } from './claim.js';

/** The changeable keys that are unique in an organization. A kind is part of its claims' names for ever. */
export type ClaimKind = 'userId' | 'email' | 'shortcut';

/** A key to be claimed. */
export interface WantedKey {
  readonly kind: ClaimKind;
  /** In its normal form: what is one key must be one text. */
  readonly value: string;
  /** What earlier builds claimed the same key as: nobody claims these any more, but who has one of them has the key. */
  readonly former?: readonly string[];
}

/** What was planned rests on a state that the log has overtaken: look again. */
export class PlanOvertaken extends Error {
  override readonly name = 'PlanOvertaken';
  /** @param held the key that turned out to be another owner's */
  constructor(readonly held?: ClaimKind) {
    super('the plan was overtaken');
  }
}

/** The claims of one attempt, and how far each can be given back. */
export interface Hold {
  /** Claims that were free before this command took them, with the revision of its own event. */
  readonly taken: Map<string, number>;
  /** Claims that the owner no longer needs once the command is in the log, with the revision before it. */
  readonly left: Map<string, number>;
}

/**
 * Claims keys for their owners. There is no transaction over two streams; what every owner keeps to instead:
 *
 * 1. An owner gets a key only by an append at the exact revision that was read **before** the key was claimed for it, and the claim is
 *    written again even when it is the owner's already. So a claim whose owner lacks the key and has an event after the claim is one that
 *    nobody can be about to use: it was left behind, and whoever meets it releases it, at the exact revision that was read.
 * 2. A claim whose owner lacks the key and has no later event is an unfinished command, perhaps in flight. What is done about it is the
 *    owner's own affair.
 * 3. Who gives a key up reads the claim before the append that gives it up and releases that revision: an owner who takes the key back in
 *    between has claimed it anew.
 */
export class Claims {
  constructor(
    private readonly transactor: Transactor,
    private readonly keys: VisitorKeys,
  ) {}

  /** The id of the key's claim. @param value in its normal form: what is one key must be one text */
  async idOf(organizationId: string, kind: ClaimKind, value: string): Promise<string> {
    return keyedHash(await this.keys.hashKey(organizationId), 'claim', kind, value);
  }

  /** Runs an attempt; what it took is given back when it is refused, what it left when it is done. */
  async holding<T>(command: CommandContext, owner: string, run: (hold: Hold) => Promise<T>): Promise<T> {
    const hold: Hold = { taken: new Map(), left: new Map() };
    try {
      const done = await run(hold);
      await this.giveBack(command, owner, hold.left);
      return done;
    } catch (error) {
      // After an outcome that is not known, the owner may have its new keys: whoever meets the claims will see.
      if (!(error instanceof ThreadlogError && error.code === 'outcome_unknown')) await this.giveBack(command, owner, hold.taken);
      throw error;
    }
  }

  /** Claims keys for an owner that lacks them. @throws PlanOvertaken when one is another's */
  async take(command: CommandContext, owner: string, wanted: readonly WantedKey[], hold: Hold): Promise<void> {
    const { organizationId } = command;
    const idsOf = (keys: readonly WantedKey[]) =>
      Promise.all(keys.map(async ({ kind, value }) => ({ kind, id: await this.idOf(organizationId, kind, value) })));
    const claims = await idsOf(wanted);
    const former = await idsOf(wanted.flatMap(({ kind, former: values = [] }) => values.map((value) => ({ kind, value }))));
    // Several are looked at before any is taken, so that a command that is refused leaves no trace but in a race.
    const looked = claims.length > 1 ? [...claims, ...former] : former;
    await Promise.all(
      looked.map(async ({ kind, id }) => {
        const held = (await this.transactor.load(claimAggregate, organizationId, id))?.state.owner ?? null;
        if (held !== null && held !== owner) throw new PlanOvertaken(kind);
      }),
    );
    for (const { kind, id } of claims) {
      let free = false;
      const done = await this.transactor.transact(claimAggregate, id, step(command), (c) => {
        free = c.owner === null;
        return claim(owner)(c);
      });
      if (done.state.owner !== owner) throw new PlanOvertaken(kind);
      // Taken again by this same command, and by nobody in between, it is still this command's to give back.
      if (free || hold.taken.get(id) === done.revision - 1) hold.taken.set(id, done.revision);
      else hold.taken.delete(id);
    }
  }

  /** Notes the claim of a key that the owner is about to give up. */
  async noteLeft(command: CommandContext, owner: string, kind: ClaimKind, value: string, left: Map<string, number>): Promise<void> {
    const id = await this.idOf(command.organizationId, kind, value);
    const claimed = await this.transactor.load(claimAggregate, command.organizationId, id);
    if (claimed?.state.owner === owner) left.set(id, claimed.revision);
  }

  /** Releases claims at the given revisions. One that has moved on is somebody's again. */
  async giveBack(command: CommandContext, owner: string, claims: ReadonlyMap<string, number>): Promise<void> {
    for (const [id, revision] of claims)
      try {
        await this.transactor.transact(claimAggregate, id, { ...step(command), ifMatch: revision }, release(owner));
      } catch (error) {
        // The owner is right either way, and a claim that stays behind is released by whoever meets it.
        if (!(error instanceof ThreadlogError)) throw error;
      }
  }
}
