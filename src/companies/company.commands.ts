import { Command } from '@nestjs/cqrs';
import type { CommandContext } from '../commands/command-context.js';
import { handledBy } from '../commands/handled-by.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import {
  archiveCompany,
  changeCompany,
  type Company,
  companyAggregate,
  type CompanyChanges,
  type CompanyDecision,
  type CompanyEvent,
  createCompany,
  unarchiveCompany,
} from './company.js';

/** The answer of every command on a company. */
export interface CompanyChanged extends Transacted<Company, CompanyEvent> {
  readonly id: string;
}

/** @throws ThreadlogError id_taken, also when an archived company has the id */
export class CreateCompany extends Command<CompanyChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly given: CompanyChanges & { readonly name: string },
  ) {
    super();
  }
}

/** Sets the named fields and merges attributes. @throws ThreadlogError not_found, resource_archived, limit_exceeded */
export class ChangeCompany extends Command<CompanyChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
    readonly changes: CompanyChanges,
  ) {
    super();
  }
}

/** @throws ThreadlogError not_found */
export class ArchiveCompany extends Command<CompanyChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

/** @throws ThreadlogError not_found */
export class UnarchiveCompany extends Command<CompanyChanged> {
  constructor(
    readonly context: CommandContext,
    readonly id: string,
  ) {
    super();
  }
}

/** Another command created it: a retry of that command is answered from the log. @throws ThreadlogError id_taken */
function unlessTaken(state: Company): Company {
  if (state.exists) throw new ThreadlogError('id_taken');
  return state;
}

async function decided(transactor: Transactor, id: string, context: CommandContext, decision: CompanyDecision): Promise<CompanyChanged> {
  return { ...(await transactor.transact(companyAggregate, id, context, decision)), id };
}

const handled = handledBy(Transactor);

/** The handlers of this file, for the module. */
export const companyCommandHandlers = [
  handled(CreateCompany, (transactor, { context, id, given }) =>
    decided(transactor, id, context, (state) => createCompany(given)(unlessTaken(state))),
  ),
  handled(ChangeCompany, (transactor, { context, id, changes }) => decided(transactor, id, context, changeCompany(changes))),
  handled(ArchiveCompany, (transactor, { context, id }) => decided(transactor, id, context, archiveCompany())),
  handled(UnarchiveCompany, (transactor, { context, id }) => decided(transactor, id, context, unarchiveCompany())),
];
