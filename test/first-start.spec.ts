import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import { AppModule } from '../src/app.module.js';
import { openBackend } from '../src/backend.js';
import { readConfig } from '../src/config.js';
import { firstStart } from '../src/first-start.js';
import { inboxAggregate } from '../src/inboxes/inbox.js';
import { organizationAggregate } from '../src/organizations/organization.js';
import { secretHash } from '../src/security/secret-hash.js';
import { createHttpApp } from '../src/http/http-app.js';
import { createLogger } from '../src/log.js';
import { createDatabase } from './support/database.js';

const KEY = 'a_key_for_the_first_start_of_threadlog';

/** The log's events by stream, without what chance or the clock gave them. */
async function started(cutAfter?: number): Promise<string[]> {
  const database = await createDatabase();
  const folder = await mkdtemp(join(tmpdir(), 'threadlog-first-start-'));
  const config = readConfig({
    DATABASE_URL: database.url,
    EVENTSTORE_URL: '',
    DATA_DIR: folder,
    MASTER_KEY: randomBytes(32).toString('base64'),
    BOOTSTRAP_API_KEY: KEY,
  });
  const logger = createLogger('silent');
  const backend = await openBackend(config, logger, { name: 'threadlog-test' });
  const app = await createHttpApp(AppModule.over(backend) as never, { logger, trustProxy: 0 });
  try {
    if (cutAfter !== undefined) {
      await sql`
        create function public.cut() returns trigger language plpgsql as $$
        begin
          if (select count(*) from log.events) >= ${sql.lit(cutAfter)} then raise exception 'cut off'; end if;
          return new;
        end $$`.execute(backend.database);
      await sql`create trigger cut before insert on log.events for each row execute function public.cut()`.execute(backend.database);
      await expect(firstStart(backend, app)).rejects.toThrow();
      await sql`drop function public.cut cascade`.execute(backend.database);
    }
    await firstStart(backend, app);
    // A finished one is left as it is.
    await firstStart(backend, app);
    const { rows } = await sql<{ event: string }>`
      select split_part(stream, '-', 1) || ' ' || type as event from log.events where stream not like 'head%' order by 1`.execute(
      backend.database,
    );
    const organization = await backend.transactor.load(organizationAggregate, 'main', 'main');
    const inbox = await backend.transactor.load(inboxAggregate, 'main', organization?.state.defaultInboxId ?? 'none');
    expect(inbox?.state).toMatchObject({ exists: true, archived: false });
    const keys = await backend.database.selectFrom('keep.api_keys').select(['hash', 'role', 'revoked_at']).execute();
    expect(keys).toEqual([{ hash: secretHash(KEY), role: 'admin', revoked_at: null }]);
    return rows.map(({ event }) => event);
  } finally {
    await app.close();
    await backend.close();
    await rm(folder, { recursive: true, force: true });
    await database.drop();
  }
}

it('that was cut off anywhere is completed by the next one, and nothing of it is made twice', async () => {
  const undisturbed = await started();
  expect(undisturbed.filter((event) => event === 'conversation ConversationOpened')).toHaveLength(4);
  const last = undisturbed.length - 1;
  for (const cutAfter of [1, 2, 3, 4, 12, last - 1, last]) expect([cutAfter, await started(cutAfter)]).toEqual([cutAfter, undisturbed]);
}, 120_000);
