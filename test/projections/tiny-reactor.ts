import type { Reactor } from '../../projections/runtime/reactor.js';

/** A reactor of the tiny group's events that makes a job of each, named like the reactor. */
export function tinyReactor(name: string, handling: () => void = () => undefined): Reactor {
  return {
    name,
    begins: 'start',
    jobs: [name],
    reaction: {
      reads: 'decoded',
      events: { conversation: ['Happened'] },
      order: 'within streams',
      handle(events, consequences) {
        for (const { event } of events)
          consequences.add({ kind: name, key: `${event.stream}@${event.revision}`, organizationId: 'org', payload: {} });
        handling();
      },
    },
  };
}
