import {
  archiveCannedResponse,
  cannedResponseAggregate,
  type CannedResponseEvent,
  changeCannedResponse,
  createCannedResponse,
  heldAfter,
  heldShortcut,
  unarchiveCannedResponse,
  voidShortcutClaim,
} from '../../src/canned-responses/canned-response.js';
import { given, instant } from '../support/given.js';

const hello = { title: 'Greeting', shortcut: '/Hello', content: 'Hi {{visitor.name | "there"}}!' };
const made: CannedResponseEvent = { type: 'CannedResponseCreated', data: hello };
const archived: CannedResponseEvent = { type: 'CannedResponseArchived', data: {} };
const voided: CannedResponseEvent = { type: 'ShortcutClaimVoided', data: { shortcut: '/hello' } };
const after = (...events: CannedResponseEvent[]) => given(cannedResponseAggregate, ...events);

describe('a canned response', () => {
  it('is made with what was given', () => {
    expect(after().when(createCannedResponse(hello)).thenEvents(made)).toEqual({
      exists: true,
      archived: false,
      ...hello,
      createdAt: instant(0),
      updatedAt: instant(0),
    });
    after(made)
      .when(createCannedResponse({ ...hello, title: 'Other' }))
      .thenNothing();
  });

  it('changes the named fields that differ', () => {
    const changed = after(made)
      .when(changeCannedResponse({ title: 'Hi', content: hello.content }))
      .thenEvents({ type: 'CannedResponseChanged', data: { title: 'Hi' } });
    expect(changed).toMatchObject({ ...hello, title: 'Hi', updatedAt: instant(1) });
    after(made)
      .when(changeCannedResponse({ ...hello }))
      .thenNothing();
    after(made).when(changeCannedResponse({})).thenNothing();
  });

  it('names no variable that is not known', () => {
    const content = 'Hi {{visitor.phone}}';
    after()
      .when(createCannedResponse({ ...hello, content }))
      .thenRefused('unknown_variable');
    const refused = after(made).when(changeCannedResponse({ content })).thenRefused('unknown_variable');
    expect(refused.extra.errors?.[0]).toMatchObject({ field: 'content', message: expect.stringContaining('visitor.phone') as string });
  });

  it('is archived, takes no change, and comes back as it was', () => {
    after(made).when(archiveCannedResponse()).thenEvents(archived);
    after(made, archived).when(archiveCannedResponse()).thenNothing();
    after(made, archived)
      .when(changeCannedResponse({ title: 'x' }))
      .thenRefused('resource_archived');
    const back = after(made, archived).when(unarchiveCannedResponse()).thenEvents({ type: 'CannedResponseUnarchived', data: {} });
    expect(back).toEqual({ exists: true, archived: false, ...hello, createdAt: instant(0), updatedAt: instant(2) });
    after(made).when(unarchiveCannedResponse()).thenNothing();
    for (const decision of [changeCannedResponse({ title: 'x' }), archiveCannedResponse(), unarchiveCannedResponse()])
      for (const none of [after(), after(voided)]) none.when(decision).thenRefused('not_found');
  });

  it('has its shortcut to itself in whatever letters, while it is there and not archived', () => {
    expect(heldShortcut(after(made).state)).toBe('/hello');
    expect(heldShortcut(after(made, archived).state)).toBeNull();
    expect(heldShortcut(after().state)).toBeNull();
    expect(heldShortcut(after({ ...made, data: { ...hello, shortcut: '/Cafe\u0301' } }).state)).toBe('/caf\u00e9');
    expect(heldAfter(after().state, [made])).toBe('/hello');
    expect(heldAfter(after(made).state, [{ type: 'CannedResponseChanged', data: { shortcut: '/x' } }])).toBe('/x');
    expect(heldAfter(after(made, archived).state, [{ type: 'CannedResponseUnarchived', data: {} }])).toBe('/hello');
  });

  it('loses a claim that it never used, and nothing else', () => {
    after(made).when(voidShortcutClaim('/hello')).thenNothing();
    const event: CannedResponseEvent = { type: 'ShortcutClaimVoided', data: { shortcut: '/other' } };
    expect(cannedResponseAggregate.evolve(after(made).state, { ...event, metadata: { occurredAt: instant(9) } } as never)).toEqual(
      after(made).state,
    );
    expect(after(voided).state).toMatchObject({ exists: false, createdAt: instant(0) });
    // One that was voided before it was made can still be made.
    expect(after(voided).when(createCannedResponse(hello)).thenEvents(made)).toMatchObject({
      exists: true,
      ...hello,
      createdAt: instant(1),
    });
  });
});
