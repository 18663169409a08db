import { type CommandContext, step } from './command-context.js';
import type { Transactor } from './transactor.js';
import { ThreadlogError } from '../errors.js';
import { keyedHash, type VisitorKeys } from '../security/visitor-keys.js';
import { claim, claimAggregate, release } from './claim.js';

/** The changeable keys that are unique in an organization. A kind is part of the names of its claims for ever. */
export type ClaimKind = 'userId' | 'email' | 'shortcut';

/** A key to be claimed. */
export interface WantedKey {
  readonly kind: ClaimKind;
  /** In normal form, so that one key is always one text. */
  readonly value: string;
  /** The texts that earlier builds claimed for the same key. Nobody claims them any more, but an owner of one of them has the key. */
  readonly former?: readonly string[];
}

/** The plan rests on an outdated state of the log: plan again. */
export class PlanOvertaken extends Error {
  override readonly name = 'PlanOvertaken';
  /** @param held the key that another owner turned out to have */
  constructor(readonly held?: ClaimKind) {
    super('the plan was overtaken');
  }
}

/** The claims of one attempt, and up to which revision each can be given back. */
export interface Hold {
  /** Claims that were free before this command took them, with the revision of the command's event. */
  readonly taken: Map<string, number>;
  /** Claims that the owner no longer needs once the command is in the log, with their revision before the command. */
  readonly left: Map<string, number>;
}

/**
 * Claims keys for their owners. There is no transaction over two streams. Every owner keeps these rules instead:
 *
 * 1. An owner gets a key only by an append at the exact revision that was read **before** the key was claimed, and the claim is written
 *    again even when the owner already has it. So if a claim's owner lacks the key but has an event after the claim, no command can still
 *    use the claim: it was left behind. The next command that meets the claim releases it, at the exact revision that it read.
 * 2. If a claim's owner lacks the key and has no event after the claim, a command is unfinished, perhaps in flight. Each kind of owner
 *    handles this in its own way.
 * 3. An owner that gives a key up reads the claim before the append that gives the key up, and releases that revision. If the owner takes
 *    the key back in between, the claim has a newer revision and stays.
 */
export class Claims {
  constructor(
    private readonly transactor: Transactor,
    private readonly keys: VisitorKeys,
  ) {}

  /** The id of the key's claim. @param value in normal form, so that one key is always one text */
  async idOf(organizationId: string, kind: ClaimKind, value: string): Promise<string> {
    return keyedHash(await this.keys.hashKey(organizationId), 'claim', kind, value);
  }

  /** Runs an attempt. When it is refused, the claims that it took are given back; when it is done, the claims that it left. */
  async holding<T>(command: CommandContext, owner: string, run: (hold: Hold) => Promise<T>): Promise<T> {
    const hold: Hold = { taken: new Map(), left: new Map() };
    try {
      const done = await run(hold);
      await this.giveBack(command, owner, hold.left);
      return done;
    } catch (error) {
      // When the outcome is unknown, the owner may have its new keys. The next command that meets the claims finds out.
      if (!(error instanceof ThreadlogError && error.code === 'outcome_unknown')) await this.giveBack(command, owner, hold.taken);
      throw error;
    }
  }

  /** Claims keys for an owner that lacks them. @throws PlanOvertaken when another owner has one of them */
  async take(command: CommandContext, owner: string, wanted: readonly WantedKey[], hold: Hold): Promise<void> {
    const { organizationId } = command;
    const idsOf = (keys: readonly WantedKey[]) =>
      Promise.all(keys.map(async ({ kind, value }) => ({ kind, id: await this.idOf(organizationId, kind, value) })));
    const claims = await idsOf(wanted);
    const former = await idsOf(wanted.flatMap(({ kind, former: values = [] }) => values.map((value) => ({ kind, value }))));
    // All claims are read before the first is taken, so that a refused command leaves no trace except in a race.
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
      // If only this command has taken the claim since, the command may still give it back.
      if (free || hold.taken.get(id) === done.revision - 1) hold.taken.set(id, done.revision);
      else hold.taken.delete(id);
    }
  }

  /** Records the claim of a key that the owner is about to give up. */
  async noteLeft(command: CommandContext, owner: string, kind: ClaimKind, value: string, left: Map<string, number>): Promise<void> {
    const id = await this.idOf(command.organizationId, kind, value);
    const claimed = await this.transactor.load(claimAggregate, command.organizationId, id);
    if (claimed?.state.owner === owner) left.set(id, claimed.revision);
  }

  /** Releases claims at the given revisions. A claim with a newer revision has been taken again and stays. */
  async giveBack(command: CommandContext, owner: string, claims: ReadonlyMap<string, number>): Promise<void> {
    for (const [id, revision] of claims)
      try {
        await this.transactor.transact(claimAggregate, id, { ...step(command), ifMatch: revision }, release(owner));
      } catch (error) {
        // The owner's state is correct either way, and the next command that meets a claim left behind releases it.
        if (!(error instanceof ThreadlogError)) throw error;
      }
  }
}
