import type { Operation } from './openapi.js';

/** A request as a shell command. */
export interface CurlExample {
  /** What the example is for, where the operation has several; otherwise empty. */
  readonly title: string;
  readonly command: string;
}

/**
 * The examples of an operation: one for each of its example bodies, or a single one without a body. The shell provides `THREADLOG_URL` and
 * `THREADLOG_KEY`; the reader replaces the words in capitals in the path.
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

/** A shell changes nothing inside single quotes; the quote itself goes between two quoted texts. */
const quoted = (text: string) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
