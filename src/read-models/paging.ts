import { createHmac, timingSafeEqual } from 'node:crypto';
import { type FieldError, ThreadlogError } from '../errors.js';

/** What a list answers beside its data. */
export interface PageMeta {
  readonly page: number;
  readonly limit: number;
  /** Exact up to TOTAL_LIMIT, a lower bound beyond it; absent with `total=none`. */
  readonly total?: number;
  readonly totalIsExact?: boolean;
  readonly hasMore: boolean;
  /** Send as `cursor` to get the rows after the last one. It is stable under inserts. */
  readonly nextCursor: string | null;
}

/** Counting stops here: an exact total of a million rows costs more than it is worth. */
export const TOTAL_LIMIT = 10_000;
/** `page` × `limit` may not go further. A cursor goes on from there at no extra cost. */
const MAX_OFFSET = 10_000;

export interface Paging {
  readonly page: number;
  readonly limit: number;
  /** Sort values of the previous page's last row. */
  readonly after: readonly (string | number | null)[] | undefined;
  readonly withTotal: boolean;
}

/**
 * Makes a page of rows with its meta data.
 * @param rows the rows from the page's first on; one row more than the limit shows that there are more
 * @param counted number of rows of all pages, at most TOTAL_LIMIT + 1; undefined when no total was asked for
 * @param cursorAfter signs the cursor after a row
 */
export function pageOfRows<R>(
  { page, limit }: Paging,
  rows: readonly R[],
  counted: number | undefined,
  cursorAfter: (last: R) => string,
): { readonly shown: readonly R[]; readonly meta: PageMeta } {
  const shown = rows.slice(0, limit);
  const last = shown[shown.length - 1];
  const hasMore = rows.length > limit;
  return {
    shown,
    meta: {
      page,
      limit,
      ...(counted === undefined ? {} : { total: Math.min(counted, TOTAL_LIMIT), totalIsExact: counted <= TOTAL_LIMIT }),
      hasMore,
      nextCursor: hasMore && last !== undefined ? cursorAfter(last) : null,
    },
  };
}

/** Signs cursors, so that nobody pages with made-up values or with another list's cursor. */
export class Cursors {
  constructor(private readonly key: Buffer) {}

  /** @param scope organization, list, filters and sort: a cursor is valid only for these */
  sign(scope: string, values: readonly (string | number | null)[]): string {
    const body = Buffer.from(JSON.stringify(values)).toString('base64url');
    return `${body}.${this.mac(scope, body)}`;
  }

  /** @throws ThreadlogError validation_failed */
  read(scope: string, cursor: string): readonly (string | number | null)[] {
    const [body = '', mac = '', ...more] = cursor.split('.');
    const expected = Buffer.from(this.mac(scope, body));
    const given = Buffer.from(mac);
    if (more.length > 0 || given.length !== expected.length || !timingSafeEqual(given, expected))
      throw invalid([{ field: 'cursor', message: 'is not a cursor of this list and filter' }]);
    return JSON.parse(Buffer.from(body, 'base64url').toString()) as (string | number | null)[];
  }

  private mac(scope: string, body: string): string {
    return createHmac('sha256', this.key).update(scope).update('\0').update(body).digest('base64url').slice(0, 22);
  }
}

const invalid = (errors: FieldError[]) => new ThreadlogError('validation_failed', undefined, { errors });

const MAX_LIMIT = 100;
const MAX_PAGE = 1_000_000;

/** The parameters of every list, as JSON Schema. */
export const PAGING_PARAMETERS = {
  page: { type: 'integer', minimum: 1, maximum: MAX_PAGE, default: 1, description: 'Not beside a cursor.' },
  limit: { type: 'integer', minimum: 1, maximum: MAX_LIMIT, default: 25 },
  cursor: { type: 'string', description: 'nextCursor of the page before, with the same filters and sort.' },
  total: { type: 'string', enum: ['none'], description: 'Leaves out the total, which is cheaper.' },
} as const;

/** Reads page, limit, cursor and total from a query of texts. @throws ThreadlogError validation_failed */
export function readPaging(query: Readonly<Record<string, unknown>>, cursors: Cursors, scope: string): Paging {
  const errors: FieldError[] = [];
  const whole = (field: string, fallback: number, max: number) => {
    const text = query[field];
    if (text === undefined) return fallback;
    if (typeof text === 'string' && /^[1-9]\d{0,8}$/.test(text) && Number(text) <= max) return Number(text);
    errors.push({ field, message: `must be a whole number from 1 to ${max}` });
    return fallback;
  };
  const limit = whole('limit', 25, MAX_LIMIT);
  const page = whole('page', 1, MAX_PAGE);
  const total = query['total'];
  if (total !== undefined && total !== 'none') errors.push({ field: 'total', message: 'must be none, or absent' });
  const cursor = query['cursor'];
  if (cursor !== undefined && typeof cursor !== 'string') errors.push({ field: 'cursor', message: 'must be one cursor' });
  if (cursor !== undefined && query['page'] !== undefined) errors.push({ field: 'page', message: 'must be absent beside a cursor' });
  if ((page - 1) * limit > MAX_OFFSET)
    errors.push({ field: 'page', message: `reaches at most ${MAX_OFFSET} rows; use nextCursor to go further` });
  if (errors.length > 0) throw invalid(errors);
  return { page, limit, after: typeof cursor === 'string' ? cursors.read(scope, cursor) : undefined, withTotal: total !== 'none' };
}
