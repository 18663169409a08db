import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Backend } from '../backend.js';
import type { Position } from '../event-store/event-store.js';
import { CommandFailed } from './command.js';
import type { Terminal } from './terminal.js';

/** How long the read models may make no progress (ms) before waiting is given up. */
const STALLED_MS = 60_000;
const LOOK_MS = 500;
const ENDING_MS = 15_000;

const CHILD = fileURLToPath(new URL('read-models.child.js', import.meta.url));

/**
 * Read models that follow the log while a command writes to it: those of a running server or worker, or else of a child process, so that
 * folding and writing have a core each. The child has no reactors: they go on with the next server or worker, do nothing about imported
 * events, and would read the whole log once more each.
 */
export class LiveReadModels {
  #child: ReturnType<typeof fork> | undefined;

  constructor(
    private readonly backend: Backend,
    private readonly terminal: Terminal,
  ) {}

  /** Runs the projections unless another process does. Any number of workers may run: one works, the others stand by. */
  async ensureRunning(): Promise<void> {
    if (this.#child !== undefined) return;
    const known = await this.backend.checkpoints.health();
    const isFollowed = (name: string) => known.some(({ group, owner }) => group === name && owner !== null);
    if (this.backend.readModels.groups.every(({ name }) => isFollowed(name))) return;
    // Logs warnings at most, to where our logs go. Nothing of it may reach standard output, which is the answer.
    const child = fork(CHILD, [], { stdio: ['ignore', 2, 2, 'ipc'], serialization: 'json' });
    this.#child = child;
    child.on('exit', () => {
      if (this.#child === child) this.#child = undefined;
    });
    child.on('error', (error) => this.terminal.note(`the projections could not be started: ${error.message}`));
  }

  /**
   * Waits until the read models hold everything that is in the log now.
   * @throws CommandFailed when the projections make no progress
   */
  async caughtUp(signal: AbortSignal): Promise<void> {
    const { store, readModels } = this.backend;
    const head = await store.head();
    if (head === 'start') return;
    for (const { name } of readModels.groups) await this.#wait(name, head, signal);
  }

  async #wait(name: string, head: Position, signal: AbortSignal): Promise<void> {
    const { checkpoints } = this.backend;
    let last = '';
    let movedAt = performance.now();
    while ((await checkpoints.waitFor(name, head, LOOK_MS)) !== 'reached') {
      signal.throwIfAborted();
      const group = await this.#look(name);
      if (group?.paused === true)
        throw new CommandFailed(`the read models are paused: threadlog projections resume ${name} lets them go on`);
      if (group !== undefined && group.stopped !== null) throw new CommandFailed(`the read models stand still: ${group.stopped}`);
      if (group?.owner === undefined || group.owner === null) await this.ensureRunning();
      const position = group?.position ?? 'start';
      if (position !== last) movedAt = performance.now();
      last = position;
      this.terminal.progress('everything is in the log; waiting for the read models');
      if (performance.now() - movedAt > STALLED_MS)
        throw new CommandFailed(
          'everything is in the log, but the read models did not move for a minute; they go on with the next server or worker',
        );
    }
    const parked = (await this.#look(name))?.parked ?? 0;
    if (parked > 0) this.terminal.note(`the read models have parked ${parked} streams with events that they could not handle`);
  }

  /** Ends the child, if there is one. */
  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    // The child ends when it loses its parent, for whatever reason.
    if (child.connected) child.disconnect();
    const late = setTimeout(() => child.kill('SIGKILL'), ENDING_MS);
    await exited;
    clearTimeout(late);
  }

  async #look(name: string) {
    return (await this.backend.checkpoints.health()).find(({ group }) => group === name);
  }
}
