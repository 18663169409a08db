import {
  archiveCompany,
  changeCompany,
  companyAggregate,
  type CompanyEvent,
  createCompany,
  MAX_COMPANY_ATTRIBUTES,
  unarchiveCompany,
} from '../../src/companies/company.js';
import { given } from '../support/given.js';

const made: CompanyEvent = { type: 'CompanyCreated', data: { name: 'Acme', attributes: { plan: 'pro', seats: 5 } } };
const after = (...events: CompanyEvent[]) => given(companyAggregate, ...events);

describe('a company', () => {
  it('is made with its attributes, those that are null left out', () => {
    after()
      .when(createCompany({ name: 'Acme', attributes: { plan: 'pro', seats: 5, none: null } }))
      .thenEvents(made);
    after()
      .when(createCompany({ name: 'Acme' }))
      .thenEvents({ type: 'CompanyCreated', data: { name: 'Acme', attributes: {} } });
    after(made)
      .when(createCompany({ name: 'Other' }))
      .thenNothing();
  });

  it('merges attributes: a value sets, null removes, the others stay', () => {
    const state = after(made)
      .when(changeCompany({ attributes: { plan: null, seats: 5, vip: false, gone: null } }))
      .thenEvents({ type: 'CompanyChanged', data: { attributes: { set: { vip: false }, removed: ['plan'] } } });
    expect(state.attributes).toEqual({ seats: 5, vip: false });
  });

  it('tells 5 from "5"', () => {
    after(made)
      .when(changeCompany({ attributes: { seats: '5' } }))
      .thenEvents({ type: 'CompanyChanged', data: { attributes: { set: { seats: '5' }, removed: [] } } });
  });

  it('takes names that every object inherits as names like any other', () => {
    after(made)
      .when(changeCompany({ attributes: { toString: null } as never }))
      .thenNothing();
    after(made)
      .when(changeCompany({ attributes: { valueOf: 'x' } as never }))
      .thenEvents({ type: 'CompanyChanged', data: { attributes: { set: { valueOf: 'x' } as never, removed: [] } } });
  });

  it('is renamed, and only when the name differs', () => {
    after(made)
      .when(changeCompany({ name: 'Acme' }))
      .thenNothing();
    after(made)
      .when(changeCompany({ name: 'Acme & Sons' }))
      .thenEvents({ type: 'CompanyChanged', data: { name: 'Acme & Sons' } });
  });

  it('holds a bounded number of attributes', () => {
    const full: CompanyEvent = {
      type: 'CompanyCreated',
      data: { name: 'Full', attributes: Object.fromEntries(Array.from({ length: MAX_COMPANY_ATTRIBUTES }, (_, n) => [`a${n}`, n])) },
    };
    after(full)
      .when(changeCompany({ attributes: { one: 'more' } }))
      .thenRefused('limit_exceeded');
    after(full)
      .when(changeCompany({ attributes: { one: 'more', a0: null } }))
      .thenEvents({ type: 'CompanyChanged', data: { attributes: { set: { one: 'more' }, removed: ['a0'] } } });
  });

  it('changes no more once it is archived', () => {
    const archived: CompanyEvent = { type: 'CompanyArchived', data: {} };

    after(made).when(archiveCompany()).thenEvents(archived);
    after(made, archived)
      .when(changeCompany({ name: 'Acme' }))
      .thenRefused('resource_archived');
    after(made, archived)
      .when(createCompany({ name: 'Acme' }))
      .thenNothing();
  });

  it('comes back as it was', () => {
    const archived: CompanyEvent = { type: 'CompanyArchived', data: {} };
    const back = after(made, archived).when(unarchiveCompany()).thenEvents({ type: 'CompanyUnarchived', data: {} });
    expect(back).toMatchObject({ archived: false, name: 'Acme', attributes: { plan: 'pro' } });
    after(made).when(unarchiveCompany()).thenNothing();
    after().when(unarchiveCompany()).thenRefused('not_found');
  });

  it('must exist to be changed or archived', () => {
    after().when(changeCompany({})).thenRefused('not_found');
    after().when(archiveCompany()).thenRefused('not_found');
  });
});
