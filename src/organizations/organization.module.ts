import { Global, Module } from '@nestjs/common';
import { OrganizationController } from './organization.controller.js';
import { OrganizationWriter } from './organization.writer.js';

@Global()
@Module({
  controllers: [OrganizationController],
  providers: [OrganizationWriter],
  exports: [OrganizationWriter],
})
export class OrganizationsModule {}
