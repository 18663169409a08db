import type { INestApplicationContext, Type } from '@nestjs/common';
import { DiscoveryService, MetadataScanner, Reflector } from '@nestjs/core';
import { GATEWAY_METADATA, MESSAGE_MAPPING_METADATA } from '@nestjs/websockets/constants.js';
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
  assertSocketMessagesDeclared(app);
}

/** @throws Error when a gateway handles a message that declares no roles */
function assertSocketMessagesDeclared(app: INestApplicationContext): void {
  const scanner = new MetadataScanner();
  const gateways = app
    .get(DiscoveryService, { strict: false })
    .getProviders()
    .flatMap(({ metatype }) =>
      typeof metatype === 'function' && Reflect.hasMetadata(GATEWAY_METADATA, metatype) ? [metatype as Type] : [],
    );
  for (const gateway of gateways) {
    const prototype = gateway.prototype as Record<string, () => unknown>;
    const bare = scanner.getAllMethodNames(prototype).filter((name) => {
      const handler = prototype[name];
      return (
        handler !== undefined &&
        Reflect.hasMetadata(MESSAGE_MAPPING_METADATA, handler) &&
        declaredRoles(app.get(Reflector), handler) === undefined
      );
    });
    if (bare.length > 0)
      throw new Error(`these socket messages declare no roles: ${bare.map((name) => `${gateway.name}.${name}`).join(', ')}`);
  }
}
