export const ROLES = ['admin', 'agent', 'auditor', 'analyst'] as const;
/** What an API key may do: explained in docs/security.md, per route in the role table. */
export type Role = (typeof ROLES)[number];

/** Who may call a route: holders of keys, by role, and visitors, who send a token. */
export const CALLER_ROLES = [...ROLES, 'visitor'] as const;
export type CallerRole = (typeof CALLER_ROLES)[number];
