import 'reflect-metadata';
import { Controller, Get, Module } from '@nestjs/common';
import { DiscoveryModule } from '@nestjs/core';
import { Command, CommandHandler, type ICommandHandler } from '@nestjs/cqrs';
import { NestFactory } from '@nestjs/core';
import { Public } from '../../src/security/auth.guard.js';
import { handlersIn } from '../../src/commands/handlers.js';
import { assertRoutesDeclared } from '../../src/http/start-checks.js';

class Handled extends Command<void> {}
class Forgotten extends Command<void> {}

@CommandHandler(Handled)
class HandledHandler implements ICommandHandler<Handled> {
  execute(): Promise<void> {
    return Promise.resolve();
  }
}

@Controller('open')
class OpenController {
  @Get('declared')
  @Public()
  declared(): string {
    return '';
  }

  @Get('bare')
  bare(): string {
    return '';
  }

  @Get('mute')
  @Public()
  mute(): string {
    return '';
  }
}

@Controller('silent')
class SilentController {
  @Get('mute')
  @Public()
  mute(): string {
    return '';
  }
}

@Module({ imports: [DiscoveryModule], controllers: [OpenController] })
class BareModule {}

@Module({ imports: [DiscoveryModule], controllers: [SilentController] })
class SilentModule {}

describe('the start is refused', () => {
  test('when a command has no handler', () => {
    expect(() => handlersIn({ Handled, Forgotten, other: 1 }, { HandledHandler })).toThrow(
      'these commands or queries have no handler: Forgotten',
    );
    expect(handlersIn({ Handled, other: 1, HandledHandler })).toEqual([HandledHandler]);
  });

  test('when a route declares no roles', async () => {
    const context = await NestFactory.createApplicationContext(BareModule, { logger: false });
    expect(() => assertRoutesDeclared(context)).toThrow('these routes declare no roles: OpenController.bare');
    await context.close();
  });

  test('when a route declares no answers', async () => {
    const context = await NestFactory.createApplicationContext(SilentModule, { logger: false });
    expect(() => assertRoutesDeclared(context)).toThrow('these routes declare no answers: SilentController.mute');
    await context.close();
  });
});
