import { z } from 'zod';
import type { Visitor } from './visitor.js';

/** A visitor, as every route answers it. */
export const visitorSchema = z
  .strictObject({
    id: z.string(),
    userId: z.string().nullable(),
    name: z.string().nullable(),
    email: z.string().nullable(),
    phone: z.string().nullable(),
    avatarUrl: z.string().nullable(),
    plan: z.string().nullable(),
    companyId: z.string().nullable(),
    attributes: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
    archived: z.boolean(),
    revision: z.number().int(),
    createdAt: z.iso.datetime({ precision: 3 }),
    updatedAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'Visitor' });
export type VisitorAnswer = z.infer<typeof visitorSchema>;

/** @param visitor with its personal fields unsealed */
export function visitorAnswer(id: string, visitor: Visitor<unknown>, revision: number): VisitorAnswer {
  const { userId, name, email, phone, avatarUrl, plan, companyId, attributes, archived, createdAt, updatedAt } = visitor;
  return {
    id,
    userId,
    name: text(name),
    email: text(email),
    phone: text(phone),
    avatarUrl: text(avatarUrl),
    plan,
    companyId,
    attributes: { ...attributes } as VisitorAnswer['attributes'],
    archived,
    revision,
    createdAt,
    updatedAt,
  };
}

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);
