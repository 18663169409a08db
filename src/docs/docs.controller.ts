import { createHash } from 'node:crypto';
import { Controller, Get, Inject, Res, type Type } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { About, Answers } from '../http/answers.js';
import { Public } from '../security/auth.guard.js';
import { asyncApiDocument, type AsyncApiDocument } from './asyncapi.js';
import { openApiDocument, type OpenApiDocument } from './openapi.js';
import { docsPage } from './docs-page.js';
import { SCRIPT } from './docs-page.script.js';
import { STYLE } from './docs-page.style.js';
import { visitorDocument } from './visitor-document.js';

const hashOf = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** Allows only the page's own script and style sheet, by their hashes. */
const POLICY = [
  "default-src 'none'",
  `style-src ${hashOf(STYLE)}`,
  `script-src ${hashOf(SCRIPT)}`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** The API's documentation, for people and for programs. It reveals no stored data, so it needs no key. */
@Controller('api')
@About('This document, for people and for programs.')
export class DocsController {
  private made: { readonly document: OpenApiDocument; readonly page: string } | undefined;

  private spoken: AsyncApiDocument | undefined;

  private forVisitors: OpenApiDocument | undefined;

  constructor(@Inject(DiscoveryService) private readonly discovery: DiscoveryService) {}

  @Get('docs.json')
  @Public()
  @Answers(
    'Answers this document.',
    'OpenAPI 3.1, generated from the code of this server. The same text is committed as docs/openapi.json.',
    { 200: z.record(z.string(), z.unknown()) },
  )
  openapi(): OpenApiDocument {
    return this.make().document;
  }

  @Get('visitor-docs.json')
  @Public()
  @Answers(
    'Answers the document for visitor tokens.',
    'OpenAPI 3.1: the part of this document that a visitor token may call, with the smaller answers that it gets there.',
    { 200: z.record(z.string(), z.unknown()) },
  )
  visitors(): OpenApiDocument {
    return (this.forVisitors ??= visitorDocument(this.make().document));
  }

  @Get('asyncapi.json')
  @Public()
  @Answers(
    'Answers the document of the live feed.',
    'AsyncAPI 3.0, generated from the code of this server: what travels over sockets. The same text is committed as docs/asyncapi.json.',
    { 200: z.record(z.string(), z.unknown()) },
  )
  asyncapi(): AsyncApiDocument {
    return (this.spoken ??= asyncApiDocument(
      this.discovery.getProviders().flatMap(({ metatype }) => (typeof metatype === 'function' ? [metatype as Type] : [])),
    ));
  }

  /** A single file without external resources, readable without its script. */
  @Get('docs')
  @Public()
  @Answers(
    'Answers this document as a page.',
    'For people, with a search and an example of every request. It needs no script to be read, and loads nothing from elsewhere.',
    { 200: { contentType: 'text/html' } },
  )
  page(@Res({ passthrough: true }) reply: FastifyReply): string {
    void reply.type('text/html; charset=utf-8').header('content-security-policy', POLICY);
    return this.make().page;
  }

  /** Built at the first request, since it would take some milliseconds of the start. */
  private make(): { document: OpenApiDocument; page: string } {
    if (this.made === undefined) {
      const document = openApiDocument(this.discovery.getControllers().map(({ metatype }) => metatype as Type));
      this.made = { document, page: docsPage(document) };
    }
    return this.made;
  }
}
