import type { Type } from '@nestjs/common';
import { Command, Query } from '@nestjs/cqrs';

// The keys under which @nestjs/cqrs stores on a handler what it handles.
const HANDLES = ['__commandHandler__', '__queryHandler__'] as const;

/**
 * Collects the handlers of commands and queries from files.
 * @param files the exports of each file, classes and lists of classes: `import * as commands from './inbox.commands.js'`
 * @throws Error when a command or query of these files has no handler in them, since its first request would fail
 */
export function handlersIn(...files: readonly object[]): Type[] {
  const classes = files.flatMap((file) => Object.values(file).flat() as unknown[]).filter(isClass);
  const handlers = classes.filter((one) => handledBy(one).length > 0);
  const handled = new Set(handlers.flatMap(handledBy));
  const bare = classes.filter((one) => isMessage(one) && !handled.has(one)).map(({ name }) => name);
  if (bare.length > 0) throw new Error(`these commands or queries have no handler: ${bare.join(', ')}`);
  return handlers;
}

const handledBy = (one: object): unknown[] =>
  HANDLES.map((key): unknown => Reflect.getMetadata(key, one)).filter((message) => message !== undefined);

const isClass = (value: unknown): value is Type => typeof value === 'function' && 'prototype' in value;

const isMessage = ({ prototype }: { readonly prototype: unknown }) => prototype instanceof Command || prototype instanceof Query;
