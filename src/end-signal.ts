/**
 * Settles with the first signal that asks this process to end: from Ctrl-C, a service manager, or a closed terminal. Call it before
 * anything is started. Before the call such a signal ends the process at once, and the servers that the process started go on without it.
 */
export function endSignal(): Promise<NodeJS.Signals> {
  // Writing to a closed terminal fails (EIO, EPIPE). Nobody could read the error, and the process must still stop properly.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  return new Promise((told) => {
    // The listeners stay, since Ctrl-C reaches a process below npm twice, from the terminal and from npm.
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, told);
  });
}
