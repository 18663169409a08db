import { z } from 'zod';
import { AVAILABILITIES, type AssigneeState } from './assignee.js';

/** An agent, as every route answers it. */
export const agentSchema = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    email: z.string().nullable(),
    availability: z.enum(AVAILABILITIES),
    archived: z.boolean(),
    revision: z.number().int(),
    createdAt: z.iso.datetime({ precision: 3 }),
    updatedAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'Agent' });
export type AgentAnswer = z.infer<typeof agentSchema>;

export function agentAnswer(id: string, agent: AssigneeState, revision: number): AgentAnswer {
  const { name, email, availability, archived, createdAt, updatedAt } = agent;
  return { id, name, email, availability, archived, revision, createdAt, updatedAt };
}

/** A team, as every route answers it. */
export const teamSchema = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    agentIds: z.array(z.string()),
    archived: z.boolean(),
    revision: z.number().int(),
    createdAt: z.iso.datetime({ precision: 3 }),
    updatedAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'Team' });
export type TeamAnswer = z.infer<typeof teamSchema>;

export function teamAnswer(id: string, team: AssigneeState, revision: number): TeamAnswer {
  const { name, agentIds, archived, createdAt, updatedAt } = team;
  return { id, name, agentIds: [...agentIds], archived, revision, createdAt, updatedAt };
}
