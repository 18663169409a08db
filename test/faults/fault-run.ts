import type { Installation } from '../support/installation.js';
import { LogVerification } from '../../src/event-store/log-verification.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';
import { HistoryCheck } from './history-check.js';
import { ANSWERED_MS, Watch } from './watch.js';
import { openShared, type Server, Writers } from './writers.js';

const nothingWrong = { lost: [], doubled: [], ghosts: [], misplaced: [], broken: [], stale: [] };
const SHARED_CONVERSATIONS = 5;

/** Clients of one installation, what happens to it meanwhile, and what must hold afterwards. */
export class FaultRun {
  /** From the end of each fault to a state in which everything works again (ms), by the fault's name. */
  readonly recovered = new Map<string, number>();
  #slowestMs = 0;

  private constructor(
    private readonly installation: Installation,
    private readonly servers: readonly Server[],
    readonly writers: Writers,
    private readonly watch: Watch,
    private readonly check: HistoryCheck,
  ) {}

  /**
   * @param servers that clients write to, in turn
   */
  static async begin(
    installation: Installation,
    servers: readonly Server[],
    options: { readonly writers: number; readonly seed: number },
  ): Promise<FaultRun> {
    const [first] = servers;
    if (first === undefined) throw new Error('there is nobody to write to');
    const shared = await Promise.all(Array.from({ length: SHARED_CONVERSATIONS }, () => openShared(first)));
    return new FaultRun(
      installation,
      servers,
      new Writers(servers, shared, options.writers, options.seed),
      new Watch(shared[0] ?? ''),
      new HistoryCheck(first),
    );
  }

  /**
   * Lets clients write, does what is to be survived, and waits until every server takes writes again by itself. Then holds what the clients
   * were told against the log and the lists.
   * @param fault ends with everything healed
   * @param watched those of the servers that it does not kill: they must answer every request
   */
  async survive(name: string, fault: () => Promise<void>, watched: readonly Server[] = this.servers): Promise<void> {
    const { writers, watch } = this;
    const before = writers.acknowledged;
    writers.start();
    watch.start(watched);
    try {
      await eventually(() => writers.acknowledged > before + 30, 60_000);
      await fault();
      const healed = performance.now();
      const acknowledged = writers.acknowledged;
      for (const server of this.servers) await ready(server);
      await eventually(() => writers.acknowledged > acknowledged + 30, 30_000);
      this.recovered.set(name, Math.max(this.recovered.get(name) ?? 0, performance.now() - healed));
    } finally {
      await watch.stop();
      await writers.stop();
    }
    this.#slowestMs = Math.max(this.#slowestMs, writers.slowestMs, watch.slowestMs);
    expect(await this.check.look(writers)).toEqual(nothingWrong);
    expect(writers.scandals).toEqual([]);
    expect(watch.scandals).toEqual([]);
    expect(writers.slowestMs).toBeLessThan(ANSWERED_MS);
  }

  /** For the end: keyed requests are answered as before, the read models are the fold of the log, and every chain verifies. */
  async judge(seed: number): Promise<void> {
    const { writers } = this;
    const keyed = writers.history.filter(({ idempotencyKey, outcome }) => idempotencyKey !== undefined && outcome === 'acknowledged');
    expect(await this.check.look(writers)).toEqual(nothingWrong);
    const events = this.check.events;
    for (const wish of keyed.slice(-30))
      expect(await writers.again(wish)).toEqual({ conversationId: wish.conversationId, messageId: wish.messageId });
    expect(await this.check.look(writers)).toEqual(nothingWrong);
    expect(this.check.events).toBe(events);

    const backend = await this.installation.openBackend();
    try {
      await expectReadModelsEqualFold({ backend, organizationId: this.installation.organizationId });
      const verification = new LogVerification();
      const head = await backend.store.head();
      const reading = new AbortController();
      for await (const batch of backend.store.feed('start', { maxEvents: 5_000, signal: reading.signal })) {
        for (const event of batch.events) verification.take(event);
        if (head === 'start' || batch.through >= head) break;
      }
      reading.abort();
      expect(verification.bad).toEqual([]);
    } finally {
      await backend.close();
    }
    const asked = writers.history;
    const retried = asked.filter(({ attempts, outcome }) => attempts > 1 && outcome === 'acknowledged').length;
    const unknown = asked.filter(({ outcome }) => outcome === 'unknown').length;
    const seconds = Object.fromEntries([...this.recovered].map(([name, ms]) => [name, Number((ms / 1_000).toFixed(1))]));
    process.stderr.write(
      `faults, seed ${seed}: ${asked.length} commands, ${writers.acknowledged} acknowledged, ${retried} of them only when asked again, ` +
        `${unknown} unknown; lost 0, doubled 0; ${events} events verified; slowest answer ${(this.#slowestMs / 1_000).toFixed(1)} s; ` +
        `seconds to recover ${JSON.stringify(seconds)}; writers ${JSON.stringify(Object.fromEntries(writers.answers))}; ` +
        `readers ${JSON.stringify(Object.fromEntries(this.watch.answers))}\n`,
    );
  }
}

async function ready({ url }: Server): Promise<void> {
  await eventually(async () => {
    const answer = await fetch(`${url}/health/ready`, { signal: AbortSignal.timeout(5_000) });
    if (!answer.ok) throw new Error(`not ready: ${await answer.text()}`);
    return true;
  }, 60_000);
}
