import type { INestApplicationContext, Type } from '@nestjs/common';
import { DiscoveryService, Reflector } from '@nestjs/core';
import { Command, Query } from '@nestjs/cqrs';
import { declaredAnswers } from './answers.js';
import { declaredRoles } from '../security/auth.guard.js';
import { routesOf } from './routes.js';

// Where @nestjs/cqrs keeps, on a handler, what it handles.
const HANDLES = ['__commandHandler__', '__queryHandler__'] as const;

/**
 * @throws Error when a route declares no roles (it would be open to all or to none by accident), or no answers (the API's document would not
 * have it)
 */
export function assertRoutesDeclared(app: INestApplicationContext): void {
  const controllers = app.get(DiscoveryService, { strict: false }).getControllers();
  const routes = routesOf(controllers.map(({ metatype }) => metatype as Type));
  const assertAll = (what: string, declared: (handler: object) => unknown) => {
    const bare = routes.filter(({ handler }) => declared(handler) === undefined);
    const names = bare.map(({ controller, handler }) => `${controller.name}.${handler.name}`);
    if (bare.length > 0) throw new Error(`these routes declare no ${what}: ${names.join(', ')}`);
  };
  assertAll('roles', (handler) => declaredRoles(app.get(Reflector), handler));
  assertAll('answers', declaredAnswers);
}

/**
 * @param modules the exports of every file that declares commands or queries
 * @param handlers the handler classes that are registered
 * @throws Error when a command or query has no handler: its first request would fail
 */
export function assertHandled(modules: readonly object[], handlers: readonly object[]): void {
  const handled = new Set(handlers.flatMap((handler) => HANDLES.map((key): unknown => Reflect.getMetadata(key, handler))));
  const declared = modules.flatMap((module) => Object.values(module).filter(isMessage));
  const bare = declared.filter((message) => !handled.has(message)).map(({ name }) => name);
  if (bare.length > 0) throw new Error(`these commands or queries have no handler: ${bare.join(', ')}`);
}

function isMessage(value: unknown): value is { readonly name: string; readonly prototype: object } {
  if (typeof value !== 'function') return false;
  const { prototype } = value as unknown as { prototype: unknown };
  return prototype instanceof Command || prototype instanceof Query;
}
