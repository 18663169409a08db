import { z } from 'zod';
import type { Organization } from './organization.js';

/** The caller's organization, as every route answers it. */
export const organizationSchema = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    /** Null only while the organization is being created. */
    defaultInboxId: z.string().nullable(),
    revision: z.number().int(),
    createdAt: z.iso.datetime({ precision: 3 }),
    updatedAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'Organization' });
export type OrganizationAnswer = z.infer<typeof organizationSchema>;

export function organizationAnswer(id: string, organization: Organization, revision: number): OrganizationAnswer {
  const { name, defaultInboxId, createdAt, updatedAt } = organization;
  return { id, name, defaultInboxId, revision, createdAt, updatedAt };
}
