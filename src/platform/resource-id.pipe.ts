import { Injectable, type PipeTransform } from '@nestjs/common';
import { ThreadlogError } from './errors.js';
import { RESOURCE_ID } from './validation.js';

/** An id in a path: one of a shape that no resource can have names nothing, which is 404 as for any unknown id. */
@Injectable()
export class ResourceIdPipe implements PipeTransform<string, string> {
  transform(id: string): string {
    if (!RESOURCE_ID.test(id)) throw new ThreadlogError('not_found');
    return id;
  }
}
