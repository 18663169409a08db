import { type DynamicModule, Inject, Module, type Type } from '@nestjs/common';
import { CommandBus } from '@nestjs/cqrs';
import type { Backend } from './backend.js';
import { FEATURES } from './features.js';
import { KernelModule } from './kernel.module.js';
import { Metrics } from './metrics/metrics.js';
import type { OwnWorker } from './own-worker.js';

/** The Nest module of every feature. They are loaded one after the other, so that their common imports are loaded only once. */
const MODULES: Type[] = [];
for (const { api } of FEATURES) MODULES.push(await api());

/** The API: the features, on top of an open backend. */
@Module({})
export class AppModule {
  constructor(@Inject(CommandBus) bus: CommandBus, @Inject(Metrics) metrics: Metrics) {
    metrics.measureCommands(bus);
  }

  /** Every controller; the documents of roles and routes are generated from them. */
  static readonly controllers: readonly Type[] = [
    ...MODULES.flatMap((module) => (Reflect.getMetadata('controllers', module) ?? []) as Type[]),
    ...KernelModule.controllers,
  ];

  /** Every provider that is a class of a feature; the document of what is sent over sockets is generated from them. */
  static readonly providers: readonly Type[] = MODULES.flatMap((module) =>
    ((Reflect.getMetadata('providers', module) ?? []) as unknown[]).filter((one): one is Type => typeof one === 'function'),
  );

  /** @param ownWorker the worker that this process has started, if it has */
  static over(backend: Backend, ownWorker?: OwnWorker): DynamicModule {
    return { module: AppModule, imports: [...MODULES, KernelModule.over(backend, ownWorker)] };
  }
}
