import type { z } from 'zod';
import type { problemSchema } from '../../src/http/problem.js';

/** An error as the API answers it. */
export type Problem = z.infer<typeof problemSchema>;
