import type { Operation } from './openapi.js';

/** A request as a shell command. */
export interface CurlExample {
  /** What it asks for, where the operation has several; else empty. */
  readonly title: string;
  readonly command: string;
}

/**
 * The examples of an operation: one for each body that it shows, or one without a body. `THREADLOG_URL` and `THREADLOG_KEY` are the shell's,
 * and what stands in capitals in the path is to be replaced.
 */
export function curlExamples(method: string, path: string, { requestBody, 'x-roles': roles }: Operation): readonly CurlExample[] {
  const address = `"$THREADLOG_URL${path.replaceAll(/\{(\w+)\}/g, (_, name: string) => name.toUpperCase())}"`;
  const first = [
    `curl ${method === 'GET' ? '' : `-X ${method} `}${address}`,
    ...(roles === 'public' ? [] : [`-H "X-API-Key: $THREADLOG_KEY"`]),
  ];
  const examples = Object.entries(requestBody?.content['application/json']?.examples ?? {});
  if (examples.length === 0) return [{ title: '', command: inLines(first) }];
  return examples.map(([title, { value }]) => ({
    title,
    command: inLines([...first, `-H 'Content-Type: application/json'`, `-d ${quoted(JSON.stringify(value, null, 2))}`]),
  }));
}

const inLines = (parts: readonly string[]) => parts.join(' \\\n  ');

/** In single quotes a shell changes nothing; the quote itself stands between two such texts. */
const quoted = (text: string) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
