import { z } from 'zod';
import { ASSIGNMENT_MODES, type Inbox } from './inbox.js';

const intervals = z
  .array(z.tuple([z.string(), z.string()]))
  .readonly()
  .optional();

/** An inbox, as every route answers it. */
export const inboxSchema = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    email: z.string().nullable(),
    isDefault: z.boolean(),
    color: z.string().nullable(),
    icon: z.string().nullable(),
    assignment: z.strictObject({
      mode: z.enum(ASSIGNMENT_MODES),
      agentIds: z.array(z.string()).readonly(),
      cap: z.number().int().nullable(),
    }),
    workingHours: z
      .strictObject({
        timezone: z.string(),
        schedule: z.strictObject({
          monday: intervals,
          tuesday: intervals,
          wednesday: intervals,
          thursday: intervals,
          friday: intervals,
          saturday: intervals,
          sunday: intervals,
        }),
      })
      .nullable(),
    autoResponder: z
      .strictObject({ enabled: z.boolean(), message: z.string(), delaySeconds: z.number().int(), onlyOutsideWorkingHours: z.boolean() })
      .nullable(),
    archived: z.boolean(),
    revision: z.number().int(),
    createdAt: z.iso.datetime({ precision: 3 }),
    updatedAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'Inbox' });
export type InboxAnswer = z.infer<typeof inboxSchema>;

/** @param isDefault from the organization, since the inbox itself does not know */
export function inboxAnswer(id: string, inbox: Inbox, revision: number, isDefault: boolean): InboxAnswer {
  const { name, description, email, color, icon, assignment, workingHours, autoResponder, archived, createdAt, updatedAt } = inbox;
  return {
    id,
    name,
    description,
    email,
    isDefault,
    color,
    icon,
    assignment,
    workingHours: workingHours as InboxAnswer['workingHours'],
    autoResponder,
    archived,
    revision,
    createdAt,
    updatedAt,
  };
}
