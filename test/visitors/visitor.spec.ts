import { randomBytes } from 'node:crypto';
import type { Metadata, Recorded } from '../../src/event-store/aggregate.js';
import { DataKey, ERASED } from '../../src/security/sealing.js';
import { claim, claimAggregate, type ClaimEvent, release } from '../../src/commands/claim.js';
import {
  archiveVisitor,
  changeVisitor,
  createVisitor,
  evolveVisitor,
  initialVisitor,
  MAX_ATTRIBUTES,
  revokeTokens,
  type Visitor,
  visitorAggregate,
  type VisitorEvent,
} from '../../src/visitors/visitor.js';
import { unsealVisitor, unsealVisitorEvent, type PlainVisitor, sealVisitor } from '../../src/visitors/visitor.sealing.js';
import { given, instant } from '../support/given.js';

const key = new DataKey(randomBytes(32));
const create = (plain: PlainVisitor) => createVisitor(sealVisitor(key, plain));
const change = (plain: PlainVisitor) => changeVisitor(sealVisitor(key, plain));
const visitor = (...history: readonly VisitorEvent[]) => given(visitorAggregate, ...history);

const ada = create({ userId: 'u-1', name: 'Ada', email: 'ada@example.com', attributes: { plan: 'pro', seats: 3 } })(initialVisitor);
const gone: VisitorEvent = { type: 'VisitorArchived', data: {} };

describe('a visitor', () => {
  test('is made with what was given, and nothing for what was not', () => {
    visitor()
      .when(create({ name: 'Ada', email: null, attributes: { gone: null } }))
      .thenEvents({ type: 'VisitorCreated', data: { name: key.seal('visitor.name', 'Ada') } });
    expect(unsealVisitor(visitor(...ada).state, key)).toEqual({
      exists: true,
      archived: false,
      userId: 'u-1',
      name: 'Ada',
      email: 'ada@example.com',
      phone: null,
      avatarUrl: null,
      plan: null,
      companyId: null,
      attributes: { plan: 'pro', seats: 3 },
      tokenGeneration: 0,
      createdAt: instant(0),
      updatedAt: instant(0),
    });
  });

  test('is not made twice', () => {
    visitor(...ada)
      .when(create({ name: 'Eve' }))
      .thenNothing();
  });

  test('has its tokens revoked once by two who revoke the same, and again by who revokes the next', () => {
    const revoked: VisitorEvent = { type: 'VisitorTokensRevoked', data: { generation: 1 } };
    const after = visitor(...ada)
      .when(revokeTokens(0))
      .thenEvents(revoked);
    expect([after.tokenGeneration, after.updatedAt]).toEqual([1, instant(1)]);
    visitor(...ada, revoked)
      .when(revokeTokens(0))
      .thenNothing();
    visitor(...ada, revoked)
      .when(revokeTokens(1))
      .thenEvents({ type: 'VisitorTokensRevoked', data: { generation: 2 } });
    visitor().when(revokeTokens(0)).thenRefused('not_found');
  });

  test('changes what differs and nothing else', () => {
    const after = visitor(...ada)
      .when(change({ name: 'Ada', phone: '+44 1', userId: 'u-1', plan: null }))
      .thenEvents({ type: 'VisitorChanged', data: { phone: key.seal('visitor.phone', '+44 1') } });
    expect(unsealVisitor(after, key)).toMatchObject({ name: 'Ada', phone: '+44 1', createdAt: instant(0), updatedAt: instant(1) });
  });

  test('null clears a field', () => {
    const after = visitor(...ada)
      .when(change({ email: null }))
      .thenEvents({ type: 'VisitorChanged', data: { email: null } });
    expect(after.email).toBeNull();
  });

  test('merges attributes; null removes one that is there', () => {
    const attribute = (name: string) => key.seal('visitor.attribute', name);
    const value = (name: string, content: unknown) => key.seal(`visitor.attribute ${name}`, content);
    const after = visitor(...ada)
      .when(change({ attributes: { plan: null, seats: 4, city: 'Kyiv', never: null } }))
      .thenEvents({
        type: 'VisitorChanged',
        data: {
          attributes: {
            set: { [attribute('seats')]: value('seats', 4), [attribute('city')]: value('city', 'Kyiv') },
            removed: [attribute('plan')],
          },
        },
      });
    expect(unsealVisitor(after, key).attributes).toEqual({ seats: 4, city: 'Kyiv' });
    visitor(...ada)
      .when(change({ attributes: { plan: 'pro', never: null } }))
      .thenNothing();
  });

  test(`has at most ${MAX_ATTRIBUTES} attributes, counted after what is removed`, () => {
    const many = Object.fromEntries(Array.from({ length: MAX_ATTRIBUTES - 2 }, (_, i) => [`a${i}`, i]));
    const full = [...ada, ...change({ attributes: many })(visitor(...ada).state)];
    visitor(...full)
      .when(change({ attributes: { one: 'more' } }))
      .thenRefused('limit_exceeded');
    expect(change({ attributes: { one: 'more', plan: null } })(visitor(...full).state)).toHaveLength(1);
  });

  test('is archived once, and takes no change after that', () => {
    const after = visitor(...ada)
      .when(archiveVisitor())
      .thenEvents(gone);
    expect(after).toMatchObject({ archived: true, userId: 'u-1' });
    visitor(...ada, gone)
      .when(change({ name: 'Ada' }))
      .thenRefused('resource_archived');
  });

  test('that does not exist is neither changed nor archived', () => {
    visitor()
      .when(change({ name: 'Ada' }))
      .thenRefused('not_found');
    visitor().when(archiveVisitor()).thenRefused('not_found');
  });

  const renamed = change({
    name: 'Augusta',
    phone: '+44 123',
    avatarUrl: 'https://example.com/a.png',
    attributes: { plan: null, city: 'London' },
  })(visitor(...ada).state);

  test('tells the log nothing personal', () => {
    const stored = JSON.stringify([...ada, ...renamed]);
    for (const secret of ['Ada', 'Augusta', 'ada@example.com', '+44 123', 'example.com', 'London', 'city', 'seats'])
      expect(stored).not.toContain(secret);
  });

  test('opens alike from its events and from its state, and to constants without its key', () => {
    const history = [...ada, ...renamed];
    for (const known of [key, undefined]) {
      const opened = history.map((event, revision) => {
        const metadata = { occurredAt: instant(revision) } as Metadata;
        return unsealVisitorEvent({ ...event, revision, metadata } as Recorded<VisitorEvent>, known);
      });
      expect(opened.reduce<Visitor<unknown>>(evolveVisitor, initialVisitor)).toEqual(unsealVisitor(visitor(...history).state, known));
    }
    expect(unsealVisitor(visitor(...ada).state, undefined)).toMatchObject({
      userId: 'u-1',
      name: ERASED,
      email: ERASED,
      phone: null,
      attributes: {},
    });
  });

  test('an event of another version, type or shape is refused', () => {
    expect(() => visitorAggregate.codec.decode('VisitorCreated', 2, {})).toThrow('does not know');
    expect(() => visitorAggregate.codec.decode('VisitorRenamed', 1, {})).toThrow('does not know');
    expect(() => visitorAggregate.codec.decode('VisitorCreated', 1, { name: 7 })).toThrow('VisitorCreated version 1');
  });
});

describe('a claim', () => {
  const claimed = (...history: readonly ClaimEvent[]) => given(claimAggregate, ...history);
  const byAda: ClaimEvent = { type: 'Claimed', data: { owner: 'ada' } };

  test('goes to the first who asks', () => {
    expect(claim('ada')(claimed().state)).toEqual([byAda]);
    claimed(byAda).when(claim('eve')).thenNothing();
    expect(claimed(byAda).state.owner).toBe('ada');
  });

  // The one decision that answers events again when it is asked on its own result.
  test('is written again for its owner, so that a release of the earlier revision fails', () => {
    expect(claim('ada')(claimed(byAda).state)).toEqual([byAda]);
  });

  test('is released by its owner alone, and free then', () => {
    claimed(byAda).when(release('eve')).thenNothing();
    const free = claimed(byAda).when(release('ada')).thenEvents({ type: 'Released', data: {} });
    expect(claim('eve')(free)).toEqual([{ type: 'Claimed', data: { owner: 'eve' } }]);
  });
});
