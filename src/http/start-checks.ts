import type { INestApplicationContext, Type } from '@nestjs/common';
import { DiscoveryService, Reflector } from '@nestjs/core';
import { declaredAnswers } from './answers.js';
import { declaredRoles } from '../security/auth.guard.js';
import { routesOf } from './routes.js';

/**
 * @throws Error when a route declares no roles (it would be open to all or to none by accident) or no answers (it would be missing in the
 * OpenAPI document)
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
