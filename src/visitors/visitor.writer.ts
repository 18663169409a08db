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

/** A key in the request that belongs to another visitor and stayed there. */
export interface KeyLeft {
  /** The field's path in the request, which names the visitor `visitor`. */
  readonly field: `visitor.${KeyKind}`;
  readonly code: (typeof TAKEN)[KeyKind];
}

/** How old (ms) the cached state may be at the first lookup of a visitor; every later lookup reads the log. */
const LOOKUP_MAX_AGE_MS = 1_000;
/** Attempts that the log may overtake before the client gets an error. */
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
  /** The state, with its personal fields in plain text. */
  readonly unsealed: Visitor<unknown>;
  /** True when this command made the visitor, false when it found one. */
  readonly made: boolean;
}

/** The answer of resolve(). */
export interface Found extends Resolved {
  /** The given keys that belong to other visitors, the strongest first. */
  readonly left: readonly KeyLeft[];
}

type Given = PlainVisitor & { readonly id?: string };

/** The visitor that holds a key. */
interface Holder {
  readonly visitorId: string;
  /** False when the visitor does not carry the key yet. */
  readonly holds: boolean;
  /** The holder's own userId; undefined while the holder does not exist yet. */
  readonly userId: string | null | undefined;
}

/** The visitor that the given keys name, and the kind of key that named it. */
interface Target {
  readonly visitorId: string;
  readonly by: 'id' | KeyKind | 'nothing';
  /** False when the visitor does not carry the key yet, so that this command has to finish another command's work. */
  readonly holds: boolean;
}

/**
 * Finds, creates and changes visitors so that a userId and an e-mail address name at most one of them (archived ones apart), also among
 * racing requests and after a crash at any step, by the rules of Claims. Whoever meets an unfinished command (the second rule) finishes
 * it: the claimed key belongs to the claim's visitor, which the request uses, and which is created if it does not exist yet.
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
   * The visitor that the strongest of `id`, `userId` and `email` names, created when there is none, and updated where the given fields
   * differ. Null and absent fields stay as they are. A key that belongs to another visitor stays there too; the answer names it, and the
   * request goes on. As a step of another command, call this with neither `keyed` nor `ifMatch`.
   * @throws ThreadlogError resource_archived for the visitor or for a company that the visitor is new to; visitor_erased, limit_exceeded,
   * unknown_company
   */
  resolve(command: CommandContext, given: Given): Promise<Found> {
    return this.find(command, given, 'leave');
  }

  /**
   * Like resolve().
   * @param others what happens to keys of other visitors: they stay there, or the command is refused
   * @throws ThreadlogError visitor_conflict when the keys name different visitors and `others` refuses that
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
   * Like resolve(), as a command of its own, which is refused when a key belongs to another visitor; an `id` must be new.
   * @throws ThreadlogError id_taken, user_id_taken, email_taken, visitor_conflict, and as resolve()
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
    // The keys may name another visitor by now; the command continues with the visitor that it found first.
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
   * Sets the named fields where they differ; null clears a field.
   * @throws ThreadlogError not_found, resource_archived, visitor_erased, user_id_taken, email_taken, limit_exceeded, unknown_company
   */
  async change(command: CommandContext, visitorId: string, fields: PlainVisitor): Promise<Resolved> {
    const given = withoutUndefined(fields);
    return this.orTaken(command, given, () => this.set(command, { visitorId, by: 'id', holds: true }, given));
  }

  /** Archives the visitor; its userId and e-mail are free for another. @throws ThreadlogError not_found */
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

  /** The visitor as the log holds it now. @throws ThreadlogError not_found */
  async get(organizationId: string, visitorId: string): Promise<VisitorView> {
    const known = await this.transactor.load(visitorAggregate, organizationId, visitorId);
    if (known === undefined) throw new ThreadlogError('not_found');
    const key = await this.keys.find(organizationId, visitorKeyId(organizationId, visitorId));
    return { visitorId, unsealed: unsealVisitor(known.state, key), revision: known.revision, position: known.position };
  }

  /** The visitor that the strongest key names, and the keys that belong to other visitors. */
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
    // An e-mail address proves no identity: it finds a visitor without a userId, and never matches a visitor with another userId.
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

  /** The visitor that holds the key; undefined when the key is free. Releases a claim that was left behind. */
  private async holder(command: CommandContext, kind: KeyKind, value: string, maxAgeMs = 0): Promise<Holder | undefined> {
    for (const form of [normal(kind, value), ...formerForms(kind, value)]) {
      const holder = await this.holderOf(command, kind, value, form, maxAgeMs);
      if (holder !== undefined) return holder;
    }
    return undefined;
  }

  /** @param form the spelling that names the claim */
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
    // This call released the claim, or another request has claimed the key in the meantime: read the log.
    const after = await this.transactor.load(claimAggregate, organizationId, claimId);
    const owner = after?.state.owner ?? null;
    return owner === null ? undefined : { visitorId: owner, holds: false, userId: undefined };
  }

  /** Runs a command that names its visitor itself: a key of another visitor is an error here, not part of the answer. */
  private async orTaken(command: CommandContext, fields: PlainVisitor, run: () => Promise<Resolved>): Promise<Resolved> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      try {
        return await run();
      } catch (error) {
        if (!(error instanceof PlanOvertaken)) throw error;
        const held = KINDS.find((kind) => kind === error.held);
        const value = held === undefined ? undefined : fields[held];
        // A claim that was left behind is free now, and the next attempt gets it.
        if (held !== undefined && typeof value === 'string' && (await this.holder(command, held, value)) !== undefined)
          throw new ThreadlogError(TAKEN[held]);
      }
    }
    throw overtaken();
  }

  /** Creates a visitor under an id that must be new. */
  private async makeOwn(command: CommandContext, visitorId: string, fields: PlainVisitor): Promise<Resolved> {
    try {
      return await this.make(command, visitorId, fields, true);
    } catch (error) {
      if (!(error instanceof PlanOvertaken) || error.held !== undefined) throw error;
      return { ...(await this.set(command, { visitorId, by: 'id', holds: true }, fields)), made: true };
    }
  }

  /**
   * Claims the keys and creates the visitor.
   * @param own the caller chose the id, so an existing visitor is an error
   * @throws PlanOvertaken when a key belongs to another visitor, or the visitor was created in the meantime
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
          // Another request met this command's claim without a visitor and created the visitor with the claimed key, as it should.
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
   * Sets the given fields of an existing visitor: claims the new keys, appends, releases the old keys.
   * @throws PlanOvertaken when a key belongs to another visitor, or no longer to this one
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
          // A change that will be refused claims nothing, and a change without new keys needs no claim.
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

  /** Answers without a trip to the log when nothing differs; not for commands that must be remembered. */
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

  /** A keyed command that was answered before finds the same visitor again, whatever its keys name by now. */
  private async remember(command: CommandContext, visitorId: string): Promise<void> {
    if (command.keyed !== true) return;
    const stream = streamName(visitorAggregate.kind, command.organizationId, visitorId);
    await this.answers.save(memoId(command), command, { stream, revision: 0 });
  }

  /** Checks that a visitor may join a company. @throws ThreadlogError unknown_company, resource_archived */
  private async assertCompany(organizationId: string, companyId: string): Promise<void> {
    const company = await this.transactor.load(companyAggregate, organizationId, companyId, LOOKUP_MAX_AGE_MS);
    if (company === undefined) throw new ThreadlogError('unknown_company', `no company has the id ${companyId}`);
    if (company.state.archived) throw new ThreadlogError('resource_archived', `the company ${companyId} is archived`);
  }

  /** The data key of an existing visitor. @throws ThreadlogError visitor_erased */
  private async keyOf(organizationId: string, visitorId: string): Promise<DataKey> {
    const key = await this.keys.find(organizationId, visitorKeyId(organizationId, visitorId));
    if (key === undefined) throw new ThreadlogError('visitor_erased');
    return key;
  }

  /** The data key of a visitor that will be created. @throws ThreadlogError visitor_erased for the id of an erased visitor */
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

/** The given keys that have to be claimed. */
function wantedKeys(kinds: readonly KeyKind[], fields: PlainVisitor): WantedKey[] {
  return kinds.flatMap((kind) => {
    const value = fields[kind];
    return typeof value === 'string' ? [{ kind, value: normal(kind, value), former: formerForms(kind, value) }] : [];
  });
}

/** The key that the visitor carries; null also for an erased e-mail. */
function keyValue(v: Visitor, key: DataKey | undefined, kind: KeyKind): string | null {
  if (kind === 'userId') return v.userId;
  return v.email === null || key === undefined ? null : String(unsealVisitor({ ...v, attributes: {} }, key).email);
}

function shows(v: Visitor, key: DataKey, kind: KeyKind, value: string | null): boolean {
  const current = keyValue(v, key, kind);
  return current === null || value === null ? current === value : normal(kind, current) === normal(kind, value);
}

/**
 * A visitor that was found by a key must still have it, and an e-mail address never matches a visitor with another userId.
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
