import { z } from 'zod';

/** The answer of POST /live-tickets; no other answer shows the ticket. */
export const liveTicketSchema = z
  .strictObject({
    ticket: z.string(),
    expiresAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'LiveTicket' });
export type LiveTicketAnswer = z.infer<typeof liveTicketSchema>;
