import type { FastifyReply } from 'fastify';

/** What an answer says in its headers of the resource that it is about. */
export interface AnswerHead {
  /** ETag. */
  readonly revision?: number;
  /** X-Position: from here on reads see what the answer tells of. */
  readonly position?: string;
  /** The path of what was made. */
  readonly location?: string;
  /** Where it is not the one status that the route declares. */
  readonly status?: number;
}

/** A body with the headers that go with it. A handler answers it instead of the body alone, and the HTTP adapter takes it apart. */
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

/** The answer of a write, or of the read of one resource. */
export const dataAnswer = <T>(
  { revision, position }: Versioned,
  data: T,
  more?: Pick<AnswerHead, 'location' | 'status'>,
): Answered<{ data: T }> => new Answered({ data }, { revision, position, ...more });

/** The answer of a write that has no body. */
export const emptyAnswer = ({ revision, position }: Versioned): Answered<undefined> => new Answered(undefined, { revision, position });

/** Sets what an answer says in its head. */
export function describeAnswer(reply: FastifyReply, { revision, position, location, status }: AnswerHead): void {
  if (revision !== undefined) void reply.header('etag', `"${revision}"`);
  if (position !== undefined) void reply.header('x-position', position);
  if (location !== undefined) void reply.header('location', location);
  if (status !== undefined) void reply.status(status);
}
