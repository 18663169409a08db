import { z } from 'zod';

const count = z.number().int().nonnegative();

const followerSchema = z.strictObject({
  name: z.string(),
  status: z.enum(['working', 'filling', 'paused', 'stopped', 'nobody']),
  /** Events between its checkpoint and the end of the log; 10,000 for as many or more. */
  lagEvents: count,
  lagSeconds: z.number().nonnegative(),
});

/** The answer of GET /operations. */
export const operationsSchema = z
  .strictObject({
    /** The groups of read models, and the reactors, which are shared by all organizations of the installation. */
    groups: z.array(followerSchema),
    reactors: z.array(followerSchema),
    /** The organization's streams that stand still, the longest first. */
    parked: z.array(
      z.strictObject({
        /** The group or reactor for which the stream stands still. */
        by: z.string(),
        /** Its kind and id: `conversation-…`. */
        stream: z.string(),
        revision: z.number().int(),
        since: z.iso.datetime({ precision: 3 }),
      }),
    ),
    /** The organization's open jobs. */
    jobs: z.array(z.strictObject({ kind: z.string(), waiting: count, overdueSeconds: z.number().nonnegative(), mostAttempts: count })),
  })
  .meta({ id: 'Operations' });
export type OperationsAnswer = z.infer<typeof operationsSchema>;
