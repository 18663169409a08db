import { Inject, Injectable } from '@nestjs/common';
import { claimAggregate } from '../commands/claim.js';
import { type ClaimKind, Claims, PlanOvertaken, type WantedKey } from '../commands/claims.js';
import { parseStreamName, type Position, streamName } from '../event-store/event-store.js';
import { assertNotRefused, type CommandContext, isSameRequest } from '../commands/command-context.js';
import { type Transacted, Transactor, type UnchangedAnswers } from '../commands/transactor.js';
import { companyAggregate } from '../companies/company.js';
import { emailKey, formerEmailKeys } from '../texts/email-address.js';
import { ThreadlogError } from '../errors.js';
import { UnchangedAnswerRows } from '../commands/idempotency.js';
import { derivedId } from '../ids.js';
import type { DataKey } from '../security/sealing.js';
import { VisitorKeys, visitorKeyId } from '../security/visitor-keys.js';
import {
  archiveVisitor,
  changeVisitor,
  createVisitor,
  type Visitor,
  visitorAggregate,
  type VisitorDecision,
  type VisitorEvent,
} from './visitor.js';
import { unsealVisitor, type PlainVisitor, sealVisitor } from './visitor.sealing.js';

const KINDS = ['userId', 'email'] as const satisfies readonly ClaimKind[];
type KeyKind = (typeof KINDS)[number];
const TAKEN = { userId: 'user_id_taken', email: 'email_taken' } as const;

/** A key that was given and left where it is, since it is another visitor's. */
export interface KeyLeft {
  /** In the request, which names the visitor `visitor`. */
  readonly field: `visitor.${KeyKind}`;
  readonly code: (typeof TAKEN)[KeyKind];
}

/** How old (ms) what other processes wrote may be when a visitor is looked up for the first time; every later look is at the log. */
const LOOKUP_MAX_AGE_MS = 1_000;
/** Plans in a row that the log had overtaken before the client is told. */
const ATTEMPTS = 8;

const normal = (kind: KeyKind, value: string) => (kind === 'email' ? emailKey(value) : value);
const formerForms = (kind: KeyKind, value: string) => (kind === 'email' ? formerEmailKeys(value) : []);

/** A visitor as readers see it. */
export interface VisitorView {
  readonly visitorId: string;
  /** Personal fields in plain text. */
  readonly unsealed: Visitor<unknown>;
  readonly revision: number;
  readonly position: Position;
}

export interface Resolved extends Transacted<Visitor, VisitorEvent> {
  readonly visitorId: string;
  /** The state with its personal fields in plain text. */
  readonly unsealed: Visitor<unknown>;
  /** True when this command made the visitor, false when it found one. */
  readonly made: boolean;
}

/** What resolve() answers. */
export interface Found extends Resolved {
  /** The given keys that are other visitors', the strongest first. */
  readonly left: readonly KeyLeft[];
}

type Given = PlainVisitor & { readonly id?: string };

/** Whose key it is. */
interface Holder {
  readonly visitorId: string;
  /** False when the visitor does not show the key yet. */
  readonly holds: boolean;
  /** The holder's own; undefined while it does not exist yet. */
  readonly userId: string | null | undefined;
}

/** Which visitor the given keys name, and by what. */
interface Target {
  readonly visitorId: string;
  readonly by: 'id' | KeyKind | 'nothing';
  /** False when the visitor does not show the key yet, so that this command has to finish what another began. */
  readonly holds: boolean;
}

/**
 * Finds, makes and changes visitors so that a userId and an e-mail address name at most one of them (archived ones apart), also among
 * racing requests and after a crash at any step: by the rules of Claims. An unfinished command (their second rule) is finished by whoever
 * meets it: the key is that visitor's, and who finds the visitor by it goes on with that one; a visitor who does not exist yet is made.
 */
@Injectable()
export class VisitorWriter {
  private readonly claims: Claims;

  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
    @Inject(UnchangedAnswerRows) private readonly answers: UnchangedAnswers,
  ) {
    this.claims = new Claims(transactor, keys);
  }

  /**
   * The visitor that the strongest of `id`, `userId` and `email` names, made when there is none, with the given fields set where they
   * differ. A field that is null or absent is left as it is, and so is a key that is another visitor's, which the answer names: nobody is
   * turned away for it. As a step of another command: give it neither `keyed` nor `ifMatch`.
   * @throws ThreadlogError resource_archived for the visitor, or a company that is not the visitor's already; visitor_erased, limit_exceeded,
   * unknown_company
   */
  resolve(command: CommandContext, given: Given): Promise<Found> {
    return this.find(command, given, 'leave');
  }

  /**
   * As resolve().
   * @param others what becomes of keys of other visitors: they are left there, or the command is refused
   * @throws ThreadlogError visitor_conflict when the keys name different visitors and it is to be refused
   */
  private async find(command: CommandContext, given: Given, others: 'leave' | 'refuse'): Promise<Found> {
    const { id, ...fields } = withoutNulls(given);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const maxAgeMs = attempt === 0 ? LOOKUP_MAX_AGE_MS : 0;
      const { target, left } = await this.named(command, id, fields, maxAgeMs);
      if (others === 'refuse' && left.length > 0) throw conflict();
      const own = withoutKeys(fields, left);
      try {
        const known = await this.transactor.load(visitorAggregate, command.organizationId, target.visitorId, maxAgeMs);
        const found =
          known === undefined
            ? await this.make(command, target.visitorId, own)
            : ((await this.unchanged(command, target, own, known)) ?? (await this.set(command, target, own)));
        return { ...found, left: left.map((kind) => ({ field: `visitor.${kind}`, code: TAKEN[kind] })) };
      } catch (error) {
        if (!(error instanceof PlanOvertaken)) throw error;
      }
    }
    throw overtaken();
  }

  /**
   * As resolve(), for a command of its own, which is refused when a key is another visitor's; an `id` must be new.
   * @throws ThreadlogError id_taken, user_id_taken, email_taken, visitor_conflict and what resolve() throws
   */
  async register(command: CommandContext, given: Given): Promise<Resolved> {
    const { id, ...fields } = withoutNulls(given);
    if (id !== undefined) return this.orTaken(command, fields, () => this.makeOwn(command, id, fields));
    const before = command.keyed === true ? await this.answers.find(memoId(command)) : undefined;
    if (before === undefined) {
      assertNotRefused(command);
      return this.find(command, fields, 'refuse');
    }
    if (!isSameRequest(before.requestHash, command)) throw new ThreadlogError('idempotency_key_reused');
    // The keys may name another visitor by now; the command goes on with the one that it had found.
    const visitorId = parseStreamName(before.stream)?.id;
    if (visitorId === undefined) throw new Error('a remembered stream has no name of ours');
    try {
      const known = await this.transactor.load(visitorAggregate, command.organizationId, visitorId);
      if (known === undefined) return await this.make(command, visitorId, fields);
      return await this.set(command, { visitorId, by: 'id', holds: true }, fields);
    } catch (error) {
      if (!(error instanceof PlanOvertaken)) throw error;
      return this.find(command, fields, 'refuse');
    }
  }

  /**
   * Sets the named fields where they differ; null clears one.
   * @throws ThreadlogError not_found, resource_archived, visitor_erased, user_id_taken, email_taken, limit_exceeded, unknown_company
   */
  async change(command: CommandContext, visitorId: string, fields: PlainVisitor): Promise<Resolved> {
    const given = withoutUndefined(fields);
    return this.orTaken(command, given, () => this.set(command, { visitorId, by: 'id', holds: true }, given));
  }

  /** Ends the visitor; its userId and e-mail are free for another. @throws ThreadlogError not_found */
  async archive(command: CommandContext, visitorId: string): Promise<Transacted<Visitor, VisitorEvent>> {
    const { organizationId } = command;
    let left = new Map<string, number>();
    const decision = archiveVisitor();
    const done = await this.transactor.transact(visitorAggregate, visitorId, command, decision, async (v) => {
      left = new Map();
      if (!v.exists || v.archived) return;
      const key = await this.keys.find(organizationId, visitorKeyId(organizationId, visitorId));
      for (const kind of KINDS) await this.noteLeft(command, visitorId, kind, keyValue(v, key, kind), left);
    });
    await this.claims.giveBack(command, visitorId, left);
    return done;
  }

  /** The visitor as the log has it now. @throws ThreadlogError not_found */
  async get(organizationId: string, visitorId: string): Promise<VisitorView> {
    const known = await this.transactor.load(visitorAggregate, organizationId, visitorId);
    if (known === undefined) throw new ThreadlogError('not_found');
    const key = await this.keys.find(organizationId, visitorKeyId(organizationId, visitorId));
    return { visitorId, unsealed: unsealVisitor(known.state, key), revision: known.revision, position: known.position };
  }

  /** The visitor that the strongest key names, and the keys that are others'. */
  private async named(
    command: CommandContext,
    id: string | undefined,
    fields: PlainVisitor,
    maxAgeMs: number,
  ): Promise<{ readonly target: Target; readonly left: readonly KeyKind[] }> {
    const [userId, email] = await Promise.all(
      KINDS.map(async (kind): Promise<Holder | undefined> => {
        const value = fields[kind];
        return typeof value === 'string' ? this.holder(command, kind, value, maxAgeMs) : undefined;
      }),
    );
    // An address is no proof of who somebody is: it finds a visitor without a userId, and does not turn one userId into another.
    const isAnothers = typeof fields.userId === 'string' && typeof email?.userId === 'string' && email.userId !== fields.userId;
    const target: Target =
      id !== undefined
        ? { visitorId: id, by: 'id', holds: true }
        : userId !== undefined
          ? { ...userId, by: 'userId' }
          : email !== undefined && !isAnothers
            ? { ...email, by: 'email' }
            : { visitorId: derivedId('visitor', command.commandId), by: 'nothing', holds: true };
    const holders = { userId, email };
    const left = KINDS.filter((kind) => holders[kind] !== undefined && holders[kind].visitorId !== target.visitorId);
    return { target, left };
  }

  /** Whose key it is; undefined when it is free. Releases a claim that was left behind. */
  private async holder(command: CommandContext, kind: KeyKind, value: string, maxAgeMs = 0): Promise<Holder | undefined> {
    for (const form of [normal(kind, value), ...formerForms(kind, value)]) {
      const holder = await this.holderOf(command, kind, value, form, maxAgeMs);
      if (holder !== undefined) return holder;
    }
    return undefined;
  }

  /** @param form what the claim is named by */
  private async holderOf(
    command: CommandContext,
    kind: KeyKind,
    value: string,
    form: string,
    maxAgeMs: number,
  ): Promise<Holder | undefined> {
    const { organizationId } = command;
    const claimId = await this.claims.idOf(organizationId, kind, form);
    const claimed = await this.transactor.load(claimAggregate, organizationId, claimId, maxAgeMs);
    const visitorId = claimed?.state.owner ?? null;
    if (claimed === undefined || visitorId === null) return undefined;
    const visitor = await this.transactor.load(visitorAggregate, organizationId, visitorId, maxAgeMs);
    if (visitor === undefined) return { visitorId, holds: false, userId: undefined };
    const { userId } = visitor.state;
    const key = await this.keys.find(organizationId, visitorKeyId(organizationId, visitorId));
    const leftBehind = visitor.state.archived || visitor.position > claimed.position;
    const current = keyValue(visitor.state, key, kind);
    if (!visitor.state.archived && current !== null && normal(kind, current) === normal(kind, value))
      return { visitorId, holds: true, userId };
    if (!leftBehind) return { visitorId, holds: false, userId };
    await this.claims.giveBack(command, visitorId, new Map([[claimId, claimed.revision]]));
    // Released by this call, or claimed anew meanwhile: the log knows.
    const after = await this.transactor.load(claimAggregate, organizationId, claimId);
    const owner = after?.state.owner ?? null;
    return owner === null ? undefined : { visitorId: owner, holds: false, userId: undefined };
  }

  /** Runs a command that names its visitor itself, so that a key of another visitor is an error and not an answer. */
  private async orTaken(command: CommandContext, fields: PlainVisitor, run: () => Promise<Resolved>): Promise<Resolved> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      try {
        return await run();
      } catch (error) {
        if (!(error instanceof PlanOvertaken)) throw error;
        const held = KINDS.find((kind) => kind === error.held);
        const value = held === undefined ? undefined : fields[held];
        // Left behind, it is free now, and the next attempt gets it.
        if (held !== undefined && typeof value === 'string' && (await this.holder(command, held, value)) !== undefined)
          throw new ThreadlogError(TAKEN[held]);
      }
    }
    throw overtaken();
  }

  /** Makes a visitor under an id that nobody may have yet. */
  private async makeOwn(command: CommandContext, visitorId: string, fields: PlainVisitor): Promise<Resolved> {
    try {
      return await this.make(command, visitorId, fields, true);
    } catch (error) {
      if (!(error instanceof PlanOvertaken) || error.held !== undefined) throw error;
      return { ...(await this.set(command, { visitorId, by: 'id', holds: true }, fields)), made: true };
    }
  }

  /**
   * Claims the keys and makes the visitor.
   * @param own the caller chose the id: one that was there before is an error
   * @throws PlanOvertaken when a key is another's, or the visitor was made meanwhile
   */
  private async make(command: CommandContext, visitorId: string, fields: PlainVisitor, own = false): Promise<Resolved> {
    const { organizationId } = command;
    const keyId = visitorKeyId(organizationId, visitorId);
    return this.claims.holding(command, visitorId, async (hold) => {
      const done = await this.transactor.transact(
        visitorAggregate,
        visitorId,
        { ...command, keyId },
        (v, key: DataKey) => {
          // Another request that met this command's claim without its visitor has made it with the claimed key, as it should.
          const onBehalf =
            hold.taken.size > 0 && KINDS.some((kind) => typeof fields[kind] === 'string' && shows(v, key, kind, fields[kind]));
          if (v.exists) throw own && !onBehalf ? new ThreadlogError('id_taken') : new PlanOvertaken();
          return createVisitor(sealVisitor(key, fields))(v);
        },
        async (v) => {
          if (!v.exists && typeof fields.companyId === 'string') await this.assertCompany(organizationId, fields.companyId);
          const key = await this.newKey(organizationId, visitorId);
          if (v.exists) return key;
          const wanted = wantedKeys(KINDS, fields);
          await this.claims.take(command, visitorId, wanted, hold);
          await this.remember(command, visitorId);
          return key;
        },
      );
      return this.resolved(visitorId, await this.keys.find(organizationId, keyId), done);
    });
  }

  /**
   * Sets the given fields of a visitor that exists: claims the new keys, appends, releases the old ones.
   * @throws PlanOvertaken when a key is another's, or no longer this visitor's
   */
  private async set(command: CommandContext, target: Target, fields: PlainVisitor): Promise<Resolved> {
    const { organizationId } = command;
    const { visitorId } = target;
    const known = await this.transactor.load(visitorAggregate, organizationId, visitorId, LOOKUP_MAX_AGE_MS);
    if (known === undefined) throw new ThreadlogError('not_found');
    const keyId = visitorKeyId(organizationId, visitorId);
    return this.claims.holding(command, visitorId, async (hold) => {
      const done = await this.transactor.transact(
        visitorAggregate,
        visitorId,
        { ...command, keyId },
        (v, decision: VisitorDecision) => decision(v),
        async (v) => {
          hold.left.clear();
          const key = await this.keyOf(organizationId, visitorId);
          const decision = changeVisitor(sealVisitor(key, fields));
          assertStillNamed(target, fields, v, key);
          // What will be refused claims nothing, and what changes no key needs none.
          const event = decision(v)[0];
          if (event?.type === 'VisitorChanged') {
            const { companyId } = event.data;
            if (typeof companyId === 'string') await this.assertCompany(organizationId, companyId);
            const moving = KINDS.filter((kind) => event.data[kind] !== undefined && !shows(v, key, kind, fields[kind] ?? null));
            const wanted = wantedKeys(moving, fields);
            await this.claims.take(command, visitorId, wanted, hold);
            for (const kind of moving) await this.noteLeft(command, visitorId, kind, keyValue(v, key, kind), hold.left);
          }
          await this.remember(command, visitorId);
          return decision;
        },
      );
      return this.resolved(visitorId, await this.keys.find(organizationId, keyId), done);
    });
  }

  private async noteLeft(
    command: CommandContext,
    visitorId: string,
    kind: KeyKind,
    value: string | null,
    left: Map<string, number>,
  ): Promise<void> {
    if (value === null) return;
    for (const form of [normal(kind, value), ...formerForms(kind, value)]) await this.claims.noteLeft(command, visitorId, kind, form, left);
  }

  /** The answer without a trip to the log, when nothing differs; not for commands that must be remembered. */
  private async unchanged(
    command: CommandContext,
    target: Target,
    fields: PlainVisitor,
    known: { state: Visitor; revision: number; position: Position },
  ): Promise<Resolved | undefined> {
    if (command.keyed === true || command.ifMatch !== undefined || !target.holds) return undefined;
    const key = await this.keyOf(command.organizationId, target.visitorId);
    assertStillNamed(target, fields, known.state, key);
    if (changeVisitor(sealVisitor(key, fields))(known.state).length > 0) return undefined;
    return this.resolved(target.visitorId, key, { ...known, outcome: 'unchanged', events: [] });
  }

  /** A keyed command that was answered finds the same visitor again, whatever its keys name by then. */
  private async remember(command: CommandContext, visitorId: string): Promise<void> {
    if (command.keyed !== true) return;
    const stream = streamName(visitorAggregate.kind, command.organizationId, visitorId);
    await this.answers.save(memoId(command), command, { stream, revision: 0 });
  }

  /** That a visitor may come to a company. @throws ThreadlogError unknown_company, resource_archived */
  private async assertCompany(organizationId: string, companyId: string): Promise<void> {
    const company = await this.transactor.load(companyAggregate, organizationId, companyId, LOOKUP_MAX_AGE_MS);
    if (company === undefined) throw new ThreadlogError('unknown_company', `no company has the id ${companyId}`);
    if (company.state.archived) throw new ThreadlogError('resource_archived', `the company ${companyId} is archived`);
  }

  /** The key of a visitor that exists. @throws ThreadlogError visitor_erased */
  private async keyOf(organizationId: string, visitorId: string): Promise<DataKey> {
    const key = await this.keys.find(organizationId, visitorKeyId(organizationId, visitorId));
    if (key === undefined) throw new ThreadlogError('visitor_erased');
    return key;
  }

  /** The key of a visitor that is about to exist. @throws ThreadlogError visitor_erased for the id of one that was */
  private async newKey(organizationId: string, visitorId: string): Promise<DataKey> {
    const made = (await this.keys.makeMany(organizationId, [visitorId])).get(visitorId);
    if (made === undefined) throw new ThreadlogError('visitor_erased');
    return made.key;
  }

  /** @param key undefined for a command that was answered before its visitor was erased */
  private resolved(visitorId: string, key: DataKey | undefined, done: Transacted<Visitor, VisitorEvent>): Resolved {
    return { ...done, visitorId, unsealed: unsealVisitor(done.state, key), made: done.events[0]?.type === 'VisitorCreated' };
  }
}

/** What of the given keys has to be claimed. */
function wantedKeys(kinds: readonly KeyKind[], fields: PlainVisitor): WantedKey[] {
  return kinds.flatMap((kind) => {
    const value = fields[kind];
    return typeof value === 'string' ? [{ kind, value: normal(kind, value), former: formerForms(kind, value) }] : [];
  });
}

/** The key that the visitor shows; null also for an e-mail that was erased. */
function keyValue(v: Visitor, key: DataKey | undefined, kind: KeyKind): string | null {
  if (kind === 'userId') return v.userId;
  return v.email === null || key === undefined ? null : String(unsealVisitor({ ...v, attributes: {} }, key).email);
}

function shows(v: Visitor, key: DataKey, kind: KeyKind, value: string | null): boolean {
  const current = keyValue(v, key, kind);
  return current === null || value === null ? current === value : normal(kind, current) === normal(kind, value);
}

/**
 * A visitor that was found by a key must still have it, and an e-mail address does not turn one userId into another.
 * @throws PlanOvertaken
 */
function assertStillNamed(target: Target, fields: PlainVisitor, v: Visitor, key: DataKey): void {
  const { by } = target;
  if (by !== 'userId' && by !== 'email') return;
  if (by === 'email' && typeof fields.userId === 'string' && v.userId !== null && v.userId !== fields.userId) throw new PlanOvertaken();
  if (target.holds && !shows(v, key, by, fields[by] ?? null)) throw new PlanOvertaken();
}

const memoId = (command: CommandContext) => derivedId('visitor-of', command.commandId);

const conflict = () => new ThreadlogError('visitor_conflict', 'the given keys name different visitors; merging them is not possible yet');

const overtaken = () => new ThreadlogError('concurrent_changes', `gave up after ${ATTEMPTS} attempts`, { retryAfterSeconds: 1 });

const withoutKeys = (fields: PlainVisitor, kinds: readonly KeyKind[]): PlainVisitor =>
  Object.fromEntries(Object.entries(fields).filter(([name]) => !kinds.some((kind) => kind === name)));

function withoutUndefined<T extends object>(given: T): T {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as T;
}

function withoutNulls<T extends object>(given: T): T {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined && value !== null)) as T;
}
