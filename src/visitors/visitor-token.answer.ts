import { z } from 'zod';

/** The answer of POST /visitor-tokens; no other answer shows the token. */
export const visitorTokenSchema = z
  .strictObject({
    token: z.string(),
    visitorId: z.string(),
    expiresAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'VisitorToken' });
export type VisitorTokenAnswer = z.infer<typeof visitorTokenSchema>;

/** The answer of POST /visitor-tokens/revoke. */
export const revokedTokensSchema = z
  .strictObject({
    visitorId: z.string(),
    revokedAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'RevokedTokens' });
export type RevokedTokensAnswer = z.infer<typeof revokedTokensSchema>;
