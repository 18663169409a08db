import { apiKeyAggregate, type ApiKeyEvent, changeKey, createKey, revokeKey } from '../../src/api-keys/api-key.js';
import { given, instant } from '../support/given.js';

const NOW = Date.parse('2026-01-01T00:00:00Z');
const made: ApiKeyEvent = {
  type: 'ApiKeyCreated',
  data: { name: 'CI', role: 'agent', agentId: 'ada', prefix: 'tl_abcde', expiresAt: '2026-01-01T00:00:00.001Z' },
};
const revoked: ApiKeyEvent = { type: 'ApiKeyRevoked', data: {} };
const after = (...events: ApiKeyEvent[]) => given(apiKeyAggregate, ...events);

describe('an API key', () => {
  it('is made, and expires in the future', () => {
    expect(
      after()
        .when(createKey(made.data as never, NOW))
        .thenEvents(made),
    ).toEqual({
      exists: true,
      name: 'CI',
      role: 'agent',
      agentId: 'ada',
      prefix: 'tl_abcde',
      rateLimitPerMinute: null,
      expiresAt: '2026-01-01T00:00:00.001Z',
      revokedAt: null,
      createdAt: instant(0),
      updatedAt: instant(0),
    });
    after()
      .when(createKey({ name: 'CI', role: 'agent', prefix: 'tl_abcde', expiresAt: '2026-01-01T00:00:00.000Z' }, NOW))
      .thenRefused('expiry_in_past');
  });

  it('is renamed, and only when the name differs', () => {
    after(made)
      .when(changeKey({ name: 'CD' }))
      .thenEvents({ type: 'ApiKeyRenamed', data: { name: 'CD' } });
    after(made)
      .when(changeKey({ name: 'CI' }))
      .thenNothing();
    after(made).when(changeKey({})).thenNothing();
  });

  it('may carry a limit of its own from the start, which changes and goes', () => {
    const limited = { type: 'ApiKeyRateLimitChanged', data: { rateLimitPerMinute: 10 } } as const;
    expect(
      after()
        .when(createKey({ ...made.data, rateLimitPerMinute: 10 } as never, NOW))
        .thenEvents(made, limited),
    ).toMatchObject({ rateLimitPerMinute: 10 });
    after(made, limited)
      .when(changeKey({ rateLimitPerMinute: 10 }))
      .thenNothing();
    after(made)
      .when(changeKey({ rateLimitPerMinute: null }))
      .thenNothing();
    after(made, limited)
      .when(changeKey({ name: 'CD', rateLimitPerMinute: 0 }))
      .thenEvents({ type: 'ApiKeyRenamed', data: { name: 'CD' } }, { type: 'ApiKeyRateLimitChanged', data: { rateLimitPerMinute: 0 } });
    after(made, limited)
      .when(changeKey({ rateLimitPerMinute: null }))
      .thenEvents({ type: 'ApiKeyRateLimitChanged', data: { rateLimitPerMinute: null } });
  });

  it('is revoked once and for good', () => {
    expect(after(made).when(revokeKey()).thenEvents(revoked)).toMatchObject({ revokedAt: instant(1), name: 'CI' });
    after(made, revoked)
      .when(changeKey({ name: 'CD' }))
      .thenRefused('resource_archived');
    after(made, revoked)
      .when(createKey(made.data as never, NOW))
      .thenNothing();
  });

  it('must exist to be renamed or revoked', () => {
    after()
      .when(changeKey({ name: 'CD' }))
      .thenRefused('not_found');
    after().when(revokeKey()).thenRefused('not_found');
  });

  it('never holds the key or its hash in the log', () => {
    expect(() => given(apiKeyAggregate, { ...made, data: { ...made.data, key: 'tl_secret' } } as never)).not.toThrow();
    expect(JSON.stringify(given(apiKeyAggregate, { ...made, data: { ...made.data, key: 'tl_secret' } } as never).state)).not.toContain(
      'secret',
    );
  });
});
