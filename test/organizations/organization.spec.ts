import {
  changeDefaultInbox,
  createOrganization,
  organizationAggregate,
  type OrganizationDecision,
  type OrganizationEvent,
  reinstateInbox,
  retireInbox,
} from '../../src/organizations/organization.js';
import { given } from '../support/given.js';

const made: OrganizationEvent = { type: 'OrganizationCreated', data: { name: 'Acme' } };
const first: OrganizationEvent = { type: 'DefaultInboxChanged', data: { inboxId: 'first' } };
const after = (...events: OrganizationEvent[]) => given(organizationAggregate, ...events);

describe('an organization', () => {
  it('is made once', () => {
    after().when(createOrganization('Acme')).thenEvents(made);
    after(made).when(createOrganization('Other')).thenNothing();
  });

  it('has the default inbox that was chosen last', () => {
    after(made).when(changeDefaultInbox('first', 0)).thenEvents(first);
    after(made, first)
      .when(changeDefaultInbox('second', 0))
      .thenEvents({ type: 'DefaultInboxChanged', data: { inboxId: 'second' } });
    after(made, first).when(changeDefaultInbox('first', 0)).thenNothing();
  });

  it('never retires its default inbox', () => {
    after(made, first).when(retireInbox('first', 0)).thenRefused('default_inbox_required');
    after(made, first)
      .when(retireInbox('second', 3))
      .thenEvents({ type: 'InboxRetired', data: { inboxId: 'second', inboxRevision: 3 } });
  });

  it('never makes a retired inbox the default', () => {
    const retired: OrganizationEvent = { type: 'InboxRetired', data: { inboxId: 'second', inboxRevision: 3 } };
    after(made, first, retired).when(changeDefaultInbox('second', 0)).thenRefused('resource_archived');
    after(made, first, retired)
      .when(changeDefaultInbox('third', 0))
      .thenEvents({ type: 'DefaultInboxChanged', data: { inboxId: 'third' } });
  });

  it('takes an inbox as the default that has gone on since it was to be retired, for then it was not', () => {
    const retired: OrganizationEvent = { type: 'InboxRetired', data: { inboxId: 'second', inboxRevision: 3 } };
    after(made, first, retired).when(changeDefaultInbox('second', 3)).thenRefused('resource_archived');
    after(made, first, retired)
      .when(changeDefaultInbox('second', 4))
      .thenEvents({ type: 'DefaultInboxChanged', data: { inboxId: 'second' } });
  });

  it('takes a retired inbox back when it comes back after that, and not when it is being retired again', () => {
    const retired = (inboxRevision: number): OrganizationEvent => ({ type: 'InboxRetired', data: { inboxId: 'second', inboxRevision } });
    const reinstated: OrganizationEvent = { type: 'InboxReinstated', data: { inboxId: 'second' } };
    after(made, first, retired(3)).when(reinstateInbox('second', 5)).thenEvents(reinstated);
    after(made, first, retired(3), reinstated)
      .when(changeDefaultInbox('second', 0))
      .thenEvents({ type: 'DefaultInboxChanged', data: { inboxId: 'second' } });
    after(made, first, retired(3), retired(6)).when(reinstateInbox('second', 5)).thenNothing();
    after(made, first, retired(3)).when(retireInbox('second', 6)).thenEvents(retired(6));
    after(made, first, retired(6)).when(retireInbox('second', 3)).thenNothing();
    after(made, first).when(reinstateInbox('second', 5)).thenNothing();
  });

  it('knows of a retirement whose revision was not written down that it was before any return', () => {
    const old = organizationAggregate.codec.decode('InboxRetired', 1, { inboxId: 'second' });
    expect(old).toEqual({ type: 'InboxRetired', data: { inboxId: 'second', inboxRevision: 0 } });
  });

  it.each<[string, OrganizationDecision]>([
    ['a default', changeDefaultInbox('first', 0)],
    ['a retirement', retireInbox('first', 0)],
    ['a reinstatement', reinstateInbox('first', 2)],
  ])('refuses %s before it exists', (_, decision) => {
    after().when(decision).thenRefused('not_found');
  });
});
