import { z } from 'zod';
import type { Company } from './company.js';

/** A company, as every route answers it. */
export const companySchema = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    attributes: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
    archived: z.boolean(),
    revision: z.number().int(),
    createdAt: z.iso.datetime({ precision: 3 }),
    updatedAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'Company' });
export type CompanyAnswer = z.infer<typeof companySchema>;

export function companyAnswer(id: string, company: Company, revision: number): CompanyAnswer {
  const { name, attributes, archived, createdAt, updatedAt } = company;
  return { id, name, attributes: { ...attributes }, archived, revision, createdAt, updatedAt };
}
