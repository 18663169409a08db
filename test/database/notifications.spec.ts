import { Notifications } from '../../src/database/notifications.js';
import { createDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { startTcpProxy } from '../support/tcp-proxy.js';

test('a connection on which nothing comes any more is noticed and replaced, and whoever listens is told to look', async () => {
  const database = await createDatabase();
  const direct = new URL(database.url);
  const proxy = await startTcpProxy({ host: direct.hostname, port: Number(direct.port) });
  const through = new URL(database.url);
  through.host = `${proxy.host}:${proxy.port}`;
  const heard: string[] = [];
  let connected = 0;
  const channels = { test_channel: { heard: (payload: string) => void heard.push(payload), connected: () => void connected++ } };
  const listening = new Notifications({ url: through.href, name: 'test', channels, aliveMs: 100 });
  const telling = new Notifications({ url: direct.href, name: 'test', channels: {} });
  try {
    await eventually(() => connected === 1);
    telling.tell('test_channel', 'before');
    await eventually(() => heard.length === 1);
    // As when a firewall forgets the connection: nobody is told.
    proxy.blackhole('old');
    await eventually(() => connected === 2);
    telling.tell('test_channel', 'after');
    await eventually(() => heard.length === 2);
    expect(heard).toEqual(['before', 'after']);
  } finally {
    await listening.close();
    await telling.close();
    await proxy.close();
    await database.drop();
  }
});
