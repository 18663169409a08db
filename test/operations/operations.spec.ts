import { randomUUID } from 'node:crypto';
import { startApi, type TestApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.stop());

test('tells how far the groups and reactors are', async () => {
  await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'V' }, message: 'Hi' } });
  await eventually(async () => {
    const { groups, reactors } = (await api.expect(200, 'GET', '/operations')).body.data;
    expect(groups.map((one: { name: string }) => one.name)).toEqual(['core', 'insight']);
    expect(reactors.map((one: { name: string }) => one.name)).toContain('snooze-timer');
    for (const one of [...groups, ...reactors]) expect(one).toMatchObject({ status: 'working', lagEvents: 0, lagSeconds: 0 });
    return true;
  });
});

test('names parked streams and open jobs of the caller’s organization alone', async () => {
  const other = await api.otherOrganization();
  const row = { group_name: 'core', generation: 0, position: '1', type: 'X', error: 'broken' };
  const at = (time: string) => new Date(`2026-01-01T${time}Z`);
  const streams = [
    { stream: `conversation-${api.organizationId}.late`, revision: 4, at: at('02:00:00') },
    { stream: `conversation-${api.organizationId}.early`, revision: 7, at: at('01:00:00') },
    { stream: `conversation-${other.organizationId}.theirs`, revision: 1, at: at('00:00:00') },
  ];
  await api.backend.database
    .insertInto('keep.parked')
    .values(streams.map((one) => ({ ...row, ...one, event_id: randomUUID() })))
    .execute();
  const asleep = async (key: string) => {
    const { id } = (await api.expect(201, 'POST', '/conversations', { key, body: { visitor: { name: 'V' }, message: 'Hi' } })).body.data;
    const until = new Date(api.clock.now() + 3_600_000).toISOString();
    await api.expect(200, 'POST', `/conversations/${id}/snooze`, { key, body: { until } });
  };
  await asleep(api.adminKey);
  for (let count = 0; count < 3; count += 1) await asleep(other.adminKey);

  await eventually(async () => {
    const { parked, jobs } = (await api.expect(200, 'GET', '/operations')).body.data;
    expect(parked).toEqual([
      { by: 'core', stream: 'conversation-early', revision: 7, since: '2026-01-01T01:00:00.000Z' },
      { by: 'core', stream: 'conversation-late', revision: 4, since: '2026-01-01T02:00:00.000Z' },
    ]);
    expect(jobs.filter((one: { waiting: number }) => one.waiting > 0)).toEqual([
      { kind: 'wake-conversation', waiting: 1, overdueSeconds: 0, mostAttempts: 0 },
    ]);
    return true;
  });
  const theirs = (await api.expect(200, 'GET', '/operations', { key: other.adminKey })).body.data;
  expect(theirs.parked).toEqual([{ by: 'core', stream: 'conversation-theirs', revision: 1, since: '2026-01-01T00:00:00.000Z' }]);
  await api.backend.database.deleteFrom('keep.parked').execute();
});

test('is for admins', async () => {
  for (const role of ['agent', 'auditor', 'analyst'] as const) await api.expect(403, 'GET', '/operations', { key: await api.keyFor(role) });
});
