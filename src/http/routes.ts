import { RequestMethod, type Type } from '@nestjs/common';
import { MetadataScanner } from '@nestjs/core';

/** Base path of the API; paths outside it (health) are for operators. */
export const API_PREFIX = '/api/support';
/** Base paths of controllers that are not below API_PREFIX. */
export const OUTSIDE_THE_API = ['health', 'api', 'metrics', 'support', 'console'] as const;
/** Where a person signs in to the console and out of it. The only address that reads a body before it knows the caller. */
export const SESSION_PATH = '/console/session';

/** A route as its controller declares it. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** The full path, with its parameters in braces: `/api/support/conversations/{id}/tags/{tag}`. */
  readonly path: string;
  readonly controller: Type;
  /** The controller's method, which carries the route's declarations. */
  readonly handler: () => unknown;
}

const METHODS: Readonly<Record<number, Route['method']>> = {
  [RequestMethod.GET]: 'GET',
  [RequestMethod.POST]: 'POST',
  [RequestMethod.PUT]: 'PUT',
  [RequestMethod.DELETE]: 'DELETE',
};

/**
 * Every route of the controllers, in the order of declaration.
 * @throws Error for an HTTP method that this API does not use
 */
export function routesOf(controllers: readonly Type[]): Route[] {
  const scanner = new MetadataScanner();
  return controllers.flatMap((controller) => {
    const prototype = controller.prototype as Record<string, () => unknown>;
    return scanner.getAllMethodNames(prototype).flatMap((name) => {
      const handler = prototype[name];
      if (handler === undefined || !Reflect.hasMetadata('path', handler)) return [];
      const method = METHODS[Reflect.getMetadata('method', handler) as number];
      if (method === undefined) throw new Error(`${controller.name}.${name}: routes are GET, POST, PUT or DELETE`);
      return [{ method, path: pathOf(controller, handler), controller, handler }];
    });
  });
}

function pathOf(controller: Type, handler: () => unknown): string {
  const base = Reflect.getMetadata('path', controller) as string;
  const prefix = (OUTSIDE_THE_API as readonly string[]).includes(base) ? '' : API_PREFIX;
  const parts = [base, Reflect.getMetadata('path', handler) as string].map((part) => part.replaceAll(/^\/+|\/+$/g, ''));
  return `${prefix}/${parts.filter((part) => part !== '').join('/')}`.replaceAll(/:(\w+)/g, '{$1}');
}
