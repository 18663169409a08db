import { request } from 'undici';

/** A request over real HTTP that is awaited whole. `fetch` would take the test's process several times as long. */
export async function ask(
  url: string,
  given: {
    readonly method: string;
    readonly headers: Readonly<Record<string, string>>;
    readonly body?: string | Buffer | undefined;
    readonly signal?: AbortSignal;
  },
): Promise<{ readonly status: number; readonly headers: Headers; readonly text: string }> {
  const { method, headers: sent, body, signal } = given;
  const answer = await request(url, {
    method: method as 'GET',
    headers: sent,
    body: body ?? null,
    ...(signal === undefined ? {} : { signal }),
  });
  const headers = new Headers();
  for (const [name, value] of Object.entries(answer.headers)) for (const one of [value ?? []].flat()) headers.append(name, one);
  return { status: answer.statusCode, headers, text: await answer.body.text() };
}
