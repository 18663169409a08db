import { Injectable, type PipeTransform } from '@nestjs/common';
import { ThreadlogError } from '../errors.js';

/** `none` was an id that could be chosen once: what has it is still found. */
const IN_A_PATH = /^(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,128}$/;

/** An id in a path: one of a shape that no resource can have names nothing, which is 404 as for any unknown id. */
@Injectable()
export class ResourceIdPipe implements PipeTransform<string, string> {
  transform(id: string): string {
    if (!IN_A_PATH.test(id)) throw new ThreadlogError('not_found');
    return id;
  }
}
