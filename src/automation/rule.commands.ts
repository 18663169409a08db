import { Inject, Injectable } from '@nestjs/common';
import { Command } from '@nestjs/cqrs';
import { CLOCK, type Clock } from '../clock.js';
import { type CommandContext, everAgain } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { companyAggregate } from '../companies/company.js';
import { ThreadlogError } from '../errors.js';
import { derivedId } from '../ids.js';
import { inboxAggregate } from '../inboxes/inbox.js';
import { assigneeAggregate } from '../team/assignee.js';
import { fieldPath } from '../texts/field-path.js';
import { type Reference, referencesOf, ruleFaults } from './rule.check.js';
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
   * Refuses a rule of which a part can never hold or be done.
   * @param before the rule as it is: what it names already is not looked up again
   * @param below the path of the rule in its request
   * @throws ThreadlogError validation_failed, unknown_assignee, unknown_team, unknown_inbox, unknown_company, resource_archived
   */
  async check(organizationId: string, rule: RuleFields, before?: RuleFields, below: readonly PropertyKey[] = []): Promise<void> {
    const same = (field: 'trigger' | 'conditions' | 'actions') =>
      before !== undefined && JSON.stringify(before[field]) === JSON.stringify(rule[field]);
    // An instant that was ahead when it was saved may have passed since.
    const faults = ruleFaults({ ...rule, actions: same('actions') ? [] : rule.actions }, this.clock.now());
    if (faults.length > 0)
      throw new ThreadlogError('validation_failed', undefined, {
        errors: faults.map(({ path, message }) => ({ field: fieldPath([...below, ...path]), message })),
      });
    const known = new Set((before === undefined ? [] : referencesOf(before)).map(label));
    for (const reference of referencesOf(rule)) if (!known.has(label(reference))) await this.look(organizationId, reference, below);
  }

  private async look(organizationId: string, { path, what, id, assigned }: Reference, below: readonly PropertyKey[]): Promise<void> {
    const field = fieldPath([...below, ...path]);
    const refusal = (
      code: 'unknown_assignee' | 'unknown_team' | 'unknown_inbox' | 'unknown_company' | 'resource_archived',
      message: string,
    ) => new ThreadlogError(code, `${field}: ${message}`, { errors: [{ field, message }] });
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
      throw refusal(`unknown_${what}`, `no ${what === 'assignee' ? 'agent or team' : what} has the id ${id}`);
    if (assigned && found.archived) throw refusal('resource_archived', `${id} is archived`);
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
