import { Inject } from '@nestjs/common';
import { Command, CommandHandler, type ICommandHandler } from '@nestjs/cqrs';
import type { CommandContext } from '../commands/command-context.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import {
  archiveCompany,
  changeCompany,
  type Company,
  companyAggregate,
  type CompanyChanges,
  type CompanyEvent,
  createCompany,
  unarchiveCompany,
} from './company.js';

/** What every command on a company answers. */
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

@CommandHandler(CreateCompany)
export class CreateCompanyHandler implements ICommandHandler<CreateCompany> {
  constructor(@Inject(Transactor) private readonly transactor: Transactor) {}

  async execute({ context, id, given }: CreateCompany): Promise<CompanyChanged> {
    const done = await this.transactor.transact(companyAggregate, id, context, (state) => {
      // Of another command's making: the one that made it is answered from the log when it comes again.
      if (state.exists) throw new ThreadlogError('id_taken');
      return createCompany(given)(state);
    });
    return { ...done, id };
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

@CommandHandler(ChangeCompany)
export class ChangeCompanyHandler implements ICommandHandler<ChangeCompany> {
  constructor(@Inject(Transactor) private readonly transactor: Transactor) {}

  async execute({ context, id, changes }: ChangeCompany): Promise<CompanyChanged> {
    return { ...(await this.transactor.transact(companyAggregate, id, context, (state) => changeCompany(changes)(state))), id };
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

@CommandHandler(ArchiveCompany)
export class ArchiveCompanyHandler implements ICommandHandler<ArchiveCompany> {
  constructor(@Inject(Transactor) private readonly transactor: Transactor) {}

  async execute({ context, id }: ArchiveCompany): Promise<CompanyChanged> {
    return { ...(await this.transactor.transact(companyAggregate, id, context, (state) => archiveCompany()(state))), id };
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

@CommandHandler(UnarchiveCompany)
export class UnarchiveCompanyHandler implements ICommandHandler<UnarchiveCompany> {
  constructor(@Inject(Transactor) private readonly transactor: Transactor) {}

  async execute({ context, id }: UnarchiveCompany): Promise<CompanyChanged> {
    return { ...(await this.transactor.transact(companyAggregate, id, context, (state) => unarchiveCompany()(state))), id };
  }
}

/** Every handler of this file; the module registers them, and the start checks that every command has one. */
export const companyCommandHandlers = [CreateCompanyHandler, ChangeCompanyHandler, ArchiveCompanyHandler, UnarchiveCompanyHandler];
