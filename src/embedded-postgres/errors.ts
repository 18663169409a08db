/** The embedded PostgreSQL cannot run. The message tells the person who started Threadlog what is wrong and what to do. */
export class EmbeddedPostgresError extends Error {
  override readonly name = 'EmbeddedPostgresError';
}

/** Whether `error` is a system or server error with one of these codes (ENOENT, 57P03 …). */
export function isCode(error: unknown, ...codes: readonly string[]): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && codes.includes(String(error.code));
}

/** The result of `work`, or undefined when the file or folder that it reads does not exist. */
export async function unlessAbsent<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The last lines of a program's output, set off from our own text. */
export function lastWords(output: string): string {
  return (output.trim() || '(nothing)')
    .split('\n')
    .slice(-12)
    .map((line) => `  ${line}`)
    .join('\n');
}
