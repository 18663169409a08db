/**
 * Settles with the first signal that asks this process to end: Ctrl-C, a service manager, or a terminal that was closed. Call it before
 * anything is started. Until it is called such a signal ends the process at once, and what the process started goes on without it.
 */
export function endSignal(): Promise<NodeJS.Signals> {
  // Writing to a terminal that was closed fails (EIO, EPIPE). There is nobody to tell, and the process has yet to stop in order.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  return new Promise((told) => {
    // The listeners stay: Ctrl-C reaches a process below npm twice, from the terminal and from npm.
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, told);
  });
}
