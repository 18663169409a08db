import Sequencer from '@jest/test-sequencer';

/**
 * The test files that take longest, the longest first. Jest knows no times on a fresh clone; one of these that began last would have a core
 * to itself at the end while the others stand idle.
 */
export const LONGEST = [
  'test/faults/postgres.spec.ts',
  'test/faults/kill.spec.ts',
  'test/projections/rebuild.spec.ts',
  'test/faults/shutdown.spec.ts',
  'test/embedded-postgres/embedded-postgres.spec.ts',
  'test/cli/import.spec.ts',
  'test/cli/export.spec.ts',
  'test/automation/rules.spec.ts',
  'test/faults/bulk-kill.spec.ts',
  'test/projections/takeover.spec.ts',
  'test/projections/frozen.spec.ts',
  'test/faults/job-kill.spec.ts',
  'test/faults/refused-appends.spec.ts',
  'test/webhooks/webhook-sender.spec.ts',
  'test/webhooks/webhooks.spec.ts',
  'test/projections/inbox-assignment.spec.ts',
  'test/contract/postgres.spec.ts',
  'test/bin/npm-start.spec.ts',
  'test/api/bad-inputs-everywhere.spec.ts',
  'test/http-out/outbound-client.spec.ts',
];

/** Jest's order, which is by the times of the last run; without those, the longest files come first. */
export default class LongestFirst extends Sequencer {
  sort(tests) {
    const sorted = super.sort(tests);
    if (sorted.some(({ duration }) => duration !== undefined)) return sorted;
    return [...LONGEST.flatMap((name) => sorted.filter(isOf(name))), ...sorted.filter((test) => !LONGEST.some((name) => isOf(name)(test)))];
  }
}

const isOf = (name) => (test) => test.path.endsWith(`/${name}`);
