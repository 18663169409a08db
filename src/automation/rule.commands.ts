import { Inject, Injectable } from '@nestjs/common';
import { Command } from '@nestjs/cqrs';
import { CLOCK, type Clock } from '../clock.js';
import { type CommandContext, everAgain } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { companyAggregate } from '../companies/company.js';
import { type FieldError, ThreadlogError } from '../errors.js';
import { type Fault, MAX_NAMED } from '../http/validation.js';
import { derivedId } from '../ids.js';
import { inboxAggregate } from '../inboxes/inbox.js';
import { assigneeAggregate } from '../team/assignee.js';
import { fieldPath } from '../texts/field-path.js';
import { impossibleFaults, partsOf, type Reference, referencesOf, sizeFaults, soundPartsOf } from './rule.check.js';
import { RulesCount } from './rules-count.reader.js';
import {
  archiveRule,
  changeRule,
  createRule,
  isInForce,
  type Rule,
  ruleAggregate,
  type RuleEvent,
  type RuleFields,
  unarchiveRule,
} from './rule.js';

/** The answer of every command on a rule. */
export interface RuleChanged extends Transacted<Rule, RuleEvent> {
  readonly id: string;
}

/** How many rules of an organization may be in force: all of them may be asked about one event. */
export const MOST_IN_FORCE = 200;

type UnknownCode = 'unknown_assignee' | 'unknown_team' | 'unknown_inbox' | 'unknown_company' | 'resource_archived';

/** A fault of a rule, with its own code if it names something that cannot be named. */
interface RuleFault extends Fault {
  readonly code?: UnknownCode;
}

/** A rule that was refused by its writer, with everything that is wrong. */
export class RefusedRule extends ThreadlogError {}

/** Checks rules against everything that they name, and writes them. */
@Injectable()
export class RuleWriter {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(CLOCK) private readonly clock: Clock,
    @Inject(RulesCount) private readonly count: RulesCount,
  ) {}

  /** @throws ThreadlogError as check() and requireRoom() */
  async create(context: CommandContext, id: string, given: RuleFields): Promise<RuleChanged> {
    const done = await this.transactor.transact(
      ruleAggregate,
      id,
      context,
      (state) => createRule(given)(state),
      async (state) => {
        if (state.exists) return;
        await this.check(context.organizationId, given);
        if (given.enabled) await this.requireRoom(context.organizationId);
      },
    );
    return { ...done, id };
  }

  /** @throws ThreadlogError not_found, resource_archived, and as check() and requireRoom() */
  async change(context: CommandContext, id: string, changes: Partial<RuleFields>): Promise<RuleChanged> {
    const done = await this.transactor.transact(
      ruleAggregate,
      id,
      context,
      (state) => changeRule(changes)(state),
      async (state) => {
        // First the error of a rule that cannot be changed, whatever is in it.
        if (!state.exists || state.archived) return;
        await this.check(context.organizationId, { ...state, ...changes }, state);
        if (changes.enabled === true && !state.enabled) await this.requireRoom(context.organizationId);
      },
    );
    return { ...done, id };
  }

  /** @throws ThreadlogError not_found */
  async archive(context: CommandContext, id: string): Promise<RuleChanged> {
    return { ...(await this.transactor.transact(ruleAggregate, id, context, (state) => archiveRule()(state))), id };
  }

  /** @throws ThreadlogError not_found, and as requireRoom() */
  async unarchive(context: CommandContext, id: string): Promise<RuleChanged> {
    const done = await this.transactor.transact(
      ruleAggregate,
      id,
      context,
      (state) => unarchiveRule()(state),
      async (state) => {
        if (state.archived && isInForce({ ...state, archived: false })) await this.requireRoom(context.organizationId);
      },
    );
    return { ...done, id };
  }

  /** Refuses another rule in force beyond the limit. @throws ThreadlogError limit_exceeded */
  private async requireRoom(organizationId: string): Promise<void> {
    if ((await this.count.inForce(organizationId)) < MOST_IN_FORCE) return;
    const message = `an organization has at most ${MOST_IN_FORCE} rules that are enabled and not archived`;
    throw new ThreadlogError('limit_exceeded', message, { errors: [{ field: 'enabled', message }] });
  }

  /**
   * Refuses a rule of which a part can never hold or be done, and names every such part.
   * @param before the rule as it is: what it names already is not looked up again
   * @param below the path of the rule in its request
   * @throws RefusedRule validation_failed; unknown_assignee, unknown_team, unknown_inbox, unknown_company or resource_archived where nothing
   *   else is wrong
   */
  async check(organizationId: string, rule: RuleFields, before?: RuleFields, below: readonly PropertyKey[] = []): Promise<void> {
    const same = before !== undefined && JSON.stringify(before.actions) === JSON.stringify(rule.actions);
    const parts = partsOf(rule);
    // An instant that was ahead when it was saved may have passed since.
    const impossible = impossibleFaults(same ? { ...parts, actions: [] } : parts, this.clock.now());
    const faults: readonly RuleFault[] = [
      ...sizeFaults(rule),
      ...impossible,
      ...(await this.unknown(organizationId, referencesOf(parts), before)),
    ].slice(0, MAX_NAMED);
    const [first] = faults;
    if (first === undefined) return;
    const errors = faults.map(({ path, message }) => ({ field: fieldPath([...below, ...path]), message }));
    const only = faults.every(({ code }) => code !== undefined) ? first.code : undefined;
    throw only === undefined
      ? new RefusedRule('validation_failed', undefined, { errors })
      : new RefusedRule(only, `${fieldPath([...below, ...first.path])}: ${first.message}`, { errors });
  }

  /**
   * What else is wrong with a rule that is refused for the form of some of its parts: what check() would find in the others.
   * @param given the rule as it was sent
   * @param id the rule that it is to change
   */
  async faultsBeside(
    organizationId: string,
    given: Readonly<Record<string, unknown>>,
    id: string | undefined,
    below: readonly PropertyKey[] = [],
  ): Promise<FieldError[]> {
    const before = id === undefined ? undefined : (await this.transactor.load(ruleAggregate, organizationId, id))?.state;
    if (id !== undefined && (before?.exists !== true || before.archived)) return [];
    const { trigger = before?.trigger, conditions = before?.conditions, actions } = given;
    const parts = soundPartsOf({ trigger, conditions, actions });
    const named = referencesOf(parts).slice(0, MAX_NAMED);
    // As in check().
    const same = before !== undefined && JSON.stringify(before.actions) === JSON.stringify(actions);
    const impossible = impossibleFaults(same ? { ...parts, actions: [] } : parts, this.clock.now());
    const faults = [...impossible, ...(await this.unknown(organizationId, named, before))];
    return faults.map(({ path, message }) => ({ field: fieldPath([...below, ...path]), message }));
  }

  /** What of that which a rule names is not there, at most MAX_NAMED of it. */
  private async unknown(organizationId: string, references: readonly Reference[], before: RuleFields | undefined): Promise<RuleFault[]> {
    const known = new Set((before === undefined ? [] : referencesOf(partsOf(before))).map(label));
    const looked = new Map<string, Pick<RuleFault, 'code' | 'message'> | undefined>();
    const faults: RuleFault[] = [];
    for (const reference of references) {
      const name = label(reference);
      if (known.has(name) || faults.length === MAX_NAMED) continue;
      if (!looked.has(name)) looked.set(name, await this.look(organizationId, reference));
      const fault = looked.get(name);
      if (fault !== undefined) faults.push({ path: reference.path, ...fault });
    }
    return faults;
  }

  private async look(
    organizationId: string,
    { what, id, assigned }: Reference,
  ): Promise<{ readonly code: UnknownCode; readonly message: string } | undefined> {
    const state = async () => {
      switch (what) {
        case 'assignee':
        case 'team':
          return (await this.transactor.load(assigneeAggregate, organizationId, id))?.state;
        case 'inbox':
          return (await this.transactor.load(inboxAggregate, organizationId, id))?.state;
        case 'company':
          return (await this.transactor.load(companyAggregate, organizationId, id))?.state;
      }
    };
    const found = await state();
    const another = found !== undefined && what === 'team' && 'type' in found && found.type !== 'team';
    if (found?.exists !== true || another)
      return { code: `unknown_${what}`, message: `no ${what === 'assignee' ? 'agent or team' : what} has the id ${id}` };
    return assigned && found.archived ? { code: 'resource_archived', message: `${id} is archived` } : undefined;
  }
}

const label = ({ what, id, assigned }: Reference) => JSON.stringify([what, id, assigned]);

/** @throws ThreadlogError limit_exceeded, and as RuleWriter.check() */
export class CreateRule extends Command<RuleChanged> {
  constructor(
    readonly context: CommandContext,
    readonly given: RuleFields,
  ) {
    super();
  }
}

/** Sets the named fields. @throws ThreadlogError not_found, resource_archived, limit_exceeded, and as RuleWriter.check() */
export class ChangeRule extends Command<RuleChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly changes: Partial<RuleFields>,
  ) {
    super();
  }
}

/** Archives it: it is asked about no later event. @throws ThreadlogError not_found */
export class ArchiveRule extends Command<RuleChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

/** @throws ThreadlogError not_found, limit_exceeded */
export class UnarchiveRule extends Command<RuleChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

const handled = handledBy(RuleWriter);

/** The handlers of this file, for the module. */
export const ruleCommandHandlers = [
  handled(CreateRule, (writer, { context, given }) => writer.create(everAgain(context), derivedId('rule', context.commandId), given)),
  handled(ChangeRule, (writer, { context, id, changes }) => writer.change(context, id, changes)),
  handled(ArchiveRule, (writer, { context, id }) => writer.archive(context, id)),
  handled(UnarchiveRule, (writer, { context, id }) => writer.unarchive(context, id)),
];
