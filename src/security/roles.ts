export const ROLES = ['admin', 'agent', 'auditor', 'analyst'] as const;
/** What an API key may do: spec in docs/security.md, per route in the role table. */
export type Role = (typeof ROLES)[number];

/** Whom a route may answer: the holders of keys by their role, and a visitor, who comes with a token. */
export const CALLER_ROLES = [...ROLES, 'visitor'] as const;
export type CallerRole = (typeof CALLER_ROLES)[number];
