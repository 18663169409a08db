import type { FastifyReply } from 'fastify';

/** What an answer's headers say about its resource. */
export interface AnswerHead {
  /** ETag. */
  readonly revision?: number;
  /** X-Position: reads from this position on include the change. */
  readonly position?: string;
  /** The path of the created resource. */
  readonly location?: string;
  /** The status, where it is not the one that the route declares. */
  readonly status?: number;
}

/** A body with its headers. A handler returns it instead of the bare body, and the HTTP adapter takes it apart. */
export class Answered<B> {
  constructor(
    readonly body: B,
    readonly head: AnswerHead,
  ) {}
}

interface Versioned {
  readonly revision: number;
  readonly position: string;
}

/** The answer of a write, or of a read of one resource. */
export const dataAnswer = <T>(
  { revision, position }: Versioned,
  data: T,
  more?: Pick<AnswerHead, 'location' | 'status'>,
): Answered<{ data: T }> => new Answered({ data }, { revision, position, ...more });

/** The answer of a write that has no body. */
export const emptyAnswer = ({ revision, position }: Versioned): Answered<undefined> => new Answered(undefined, { revision, position });

/** Sets the headers of an answer. */
export function describeAnswer(reply: FastifyReply, { revision, position, location, status }: AnswerHead): void {
  if (revision !== undefined) void reply.header('etag', `"${revision}"`);
  if (position !== undefined) void reply.header('x-position', position);
  if (location !== undefined) void reply.header('location', location);
  if (status !== undefined) void reply.status(status);
}
