import { createHash } from 'node:crypto';
import { Controller, Get, Inject, Res, type Type } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { Answers } from '../platform/answers.js';
import { Public } from '../platform/auth.guard.js';
import { openApiDocument, type OpenApiDocument } from '../platform/openapi.js';
import { docsPage, STYLE } from './docs-page.js';

const STYLE_HASH = createHash('sha256').update(STYLE).digest('base64');

/** What the API is, for people and for programs. It tells nothing of what is stored, so it needs no key. */
@Controller('api')
export class DocsController {
  private made: { readonly document: OpenApiDocument; readonly page: string } | undefined;

  constructor(@Inject(DiscoveryService) private readonly discovery: DiscoveryService) {}

  @Get('docs.json')
  @Public()
  @Answers(
    'Answers this document.',
    'OpenAPI 3.1, generated from the code of this server. The same text is committed as docs/openapi.json.',
    { 200: z.record(z.string(), z.unknown()) },
  )
  json(): OpenApiDocument {
    return this.make().document;
  }

  /** One file: no script, and nothing from anywhere else. */
  @Get('docs')
  @Public()
  @Answers('Answers this document as a page.', 'For people. It needs no script, and loads nothing from elsewhere.', {
    200: { contentType: 'text/html' },
  })
  page(@Res({ passthrough: true }) reply: FastifyReply): string {
    void reply
      .type('text/html; charset=utf-8')
      .header('content-security-policy', `default-src 'none'; style-src 'sha256-${STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'`);
    return this.make().page;
  }

  /** With the first request, since it takes some milliseconds of the start. */
  private make(): { document: OpenApiDocument; page: string } {
    if (this.made === undefined) {
      const document = openApiDocument(this.discovery.getControllers().map(({ metatype }) => metatype as Type));
      this.made = { document, page: docsPage(document) };
    }
    return this.made;
  }
}
