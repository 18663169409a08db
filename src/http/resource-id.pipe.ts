import { Injectable, type PipeTransform } from '@nestjs/common';
import { ThreadlogError } from '../errors.js';

/** Accepts `none`, which used to be a valid id, so that old resources are still found. */
const IN_A_PATH = /^(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,128}$/;

/** An id in a path. An id with an impossible shape is 404, like any unknown id. */
@Injectable()
export class ResourceIdPipe implements PipeTransform<string, string> {
  transform(id: string): string {
    if (!IN_A_PATH.test(id)) throw new ThreadlogError('not_found');
    return id;
  }
}
