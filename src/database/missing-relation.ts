/** Whether PostgreSQL refused a statement because a table, a view or a schema is not there (SQLSTATE 42P01, 3F000), as while read models are made anew. */
export const isMissingRelation = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === '42P01' || error.code === '3F000');
