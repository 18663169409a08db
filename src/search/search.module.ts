import { Module } from '@nestjs/common';
import { SearchController } from './search.controller.js';
import { SearchReader } from './search.reader.js';

@Module({ controllers: [SearchController], providers: [SearchReader] })
export class SearchModule {}
