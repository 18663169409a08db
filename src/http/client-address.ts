import type { IncomingMessage } from 'node:http';

/**
 * The address of the client, as Fastify finds it for a request that is no upgrade.
 * @param trustProxy number of reverse proxies in front, of which each adds the address that it saw to X-Forwarded-For
 */
export function clientAddress(request: IncomingMessage, trustProxy: number): string {
  const forwarded = (request.headersDistinct['x-forwarded-for'] ?? []).join(',').split(',');
  const before = forwarded.map((one) => one.trim()).filter((one) => one !== '');
  const nearestFirst = [request.socket.remoteAddress ?? '', ...before.reverse()];
  return nearestFirst[Math.min(trustProxy, nearestFirst.length - 1)] ?? '';
}
