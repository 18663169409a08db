import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Inject, Injectable, type OnModuleInit } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ThreadlogError } from '../errors.js';
import { ignoreFailure } from '../ignore-failure.js';

/** What bin/build-console.js wrote beside the files: their names, and the encodings that each has. */
interface Manifest {
  readonly files: Readonly<Record<string, { readonly type: string; readonly encodings: readonly ('br' | 'gzip')[] }>>;
}

interface ServedFile {
  readonly type: string;
  readonly etag: string;
  /** By content coding; '' for the file as it is. */
  readonly bodies: ReadonlyMap<string, Buffer>;
}

const PAGE = 'index.html';
const SUFFIX = { br: '.br', gzip: '.gz' } as const;

/** Seen from the build (dist/src/console), then from the sources. */
const FOLDERS = ['../../console/', '../../dist/console/'].map((path) => new URL(path, import.meta.url));

/**
 * Allows the page's own files and the API of its own host, and nothing else. Trusted types refuse every way of making markup out of text,
 * so that what visitors write stays text even if a component should forget it.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

/**
 * Serves the console's files, which hold no data and need no key. They are routes of the server and not of a controller, since they are no
 * part of the API: every address below /console that is no file is the page, whose script shows what the address names.
 */
@Injectable()
export class ConsoleFiles implements OnModuleInit {
  #files: Promise<ReadonlyMap<string, ServedFile>> | undefined;

  constructor(@Inject(HttpAdapterHost) private readonly host: HttpAdapterHost) {}

  onModuleInit(): void {
    // A worker has the same modules and serves nothing.
    const adapter = this.host.httpAdapter as HttpAdapterHost['httpAdapter'] | null;
    if (adapter === null) return;
    const server = adapter.getInstance<FastifyInstance>();
    for (const url of ['/console', '/console/*'])
      server.route({ method: ['GET', 'HEAD'], url, handler: (request, reply) => this.answer(request, reply) });
  }

  private async answer(request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    const [path = ''] = request.url.split('?', 1);
    const name = path.replace(/^\/console\/?/, '');
    const files = await this.files();
    const isPage = !name.startsWith('assets/');
    const file = files.get(isPage ? PAGE : name);
    if (file === undefined) throw new ThreadlogError('not_found');
    void reply.header('cache-control', isPage ? 'no-cache' : 'public, max-age=31536000, immutable');
    void reply.header('etag', file.etag);
    void reply.header('vary', 'accept-encoding');
    void reply.header('cross-origin-resource-policy', 'same-origin');
    if (isPage) {
      void reply.header('content-security-policy', POLICY);
      void reply.header('cross-origin-opener-policy', 'same-origin');
      void reply.header('referrer-policy', 'no-referrer');
    }
    if (request.headers['if-none-match'] === file.etag) return reply.status(304).send();
    const accepted = request.headers['accept-encoding'] ?? '';
    const encoding = ['br', 'gzip'].find(
      (one) => file.bodies.has(one) && new RegExp(`\\b${one}\\b(?!;q=0(\\.0*)?\\s*(,|$))`).test(accepted),
    );
    if (encoding !== undefined) void reply.header('content-encoding', encoding);
    return reply.type(file.type).send(file.bodies.get(encoding ?? ''));
  }

  /** Read once, at the first request, since they are small and a start should not wait for them. */
  private async files(): Promise<ReadonlyMap<string, ServedFile>> {
    this.#files ??= readFiles();
    const files = await this.#files;
    // A build may be made while the API runs from its sources.
    if (files.size === 0) this.#files = undefined;
    return files;
  }
}

async function readFiles(): Promise<ReadonlyMap<string, ServedFile>> {
  for (const folder of FOLDERS) {
    const manifest = await ignoreFailure(
      readFile(new URL('manifest.json', folder), 'utf8'),
      'the build is in the other folder, or was not made',
    );
    if (manifest === undefined) continue;
    const { files } = JSON.parse(manifest) as Manifest;
    return new Map(
      await Promise.all(
        Object.entries(files).map(async ([name, { type, encodings }]) => {
          const whole = await readFile(new URL(name, folder));
          const coded = await Promise.all(
            encodings.map(async (encoding) => [encoding, await readFile(new URL(name + SUFFIX[encoding], folder))] as const),
          );
          const etag = `"${createHash('sha256').update(whole).digest('base64url').slice(0, 22)}"`;
          return [name, { type, etag, bodies: new Map<string, Buffer>([['', whole], ...coded]) }] as const;
        }),
      ),
    );
  }
  return new Map();
}
