import type { IncomingMessage } from 'node:http';

/** The origins whose pages may call the API from a browser; `*` is every origin. */
export type CorsOrigins = readonly string[] | '*';

/**
 * Reads a list of origins separated by commas, each as a browser sends it.
 * @returns `*`, or the origins without duplicates
 * @throws Error that names the first invalid entry
 */
export function parseOrigins(text: string): CorsOrigins {
  if (text.trim() === '*') return '*';
  return [...new Set(text.split(',').map((entry) => parseOrigin(entry.trim())))];
}

function parseOrigin(text: string): string {
  const match = /^([a-z][a-z0-9+.-]*):\/\/[^/?#@*\s]+\/?$/i.exec(text);
  if (match === null || !URL.canParse(text))
    throw new Error(`"${text}" is no origin, which is scheme://host or scheme://host:port; * stands alone`);
  const { origin } = new URL(text);
  // For a scheme that browsers do not know, such as an app's capacitor://localhost, URL says "null" and the app sends the text itself.
  return origin === 'null' ? text.replace(/\/$/, '').toLowerCase() : origin;
}

/**
 * Whether a socket may be opened: by a program, which sends no Origin, by a page of this very host, or by a page of these origins. Unlike
 * answers of HTTP, a socket can be read by pages of every origin unless the server itself refuses them.
 */
export function mayConnect({ headers: { origin, host } }: IncomingMessage, origins: CorsOrigins = []): boolean {
  if (origin === undefined || origins === '*' || origins.includes(origin)) return true;
  return isOwnOrigin(origin, host);
}

/** Whether an Origin is that of the host which the request names. The scheme is not compared: a proxy may have taken the TLS off. */
export function isOwnOrigin(origin: string, host: string | undefined): boolean {
  return URL.canParse(origin) && new URL(origin).host === host?.toLowerCase();
}
