import { IsOptional } from 'class-validator';
import { type FieldError, ThreadlogError } from '../errors.js';
import { fieldPath } from '../texts/field-path.js';
import { Described } from '../http/request-schema.js';
import {
  Becomes,
  IfGiven,
  IsInstant,
  IsList,
  IsOneOf,
  IsRecord,
  IsVisibleText,
  madeOfText,
  MAX_ATTRIBUTE,
  parseInstant,
  textFault,
} from '../http/validation.js';
import { type ConversationFilter, type Sort, SORTS } from './conversation.list.js';
import { IsQuestion } from '../search/question.rule.js';
import { PAGING_PARAMETERS } from '../read-models/paging.js';
import { PRIORITIES, type Priority, type Status, STATUSES } from './conversation.js';

/** The values of a repeated parameter. */
const MAX_VALUES = 50;

/** A repeated parameter matches any of its values. */
const Listed = (): PropertyDecorator => (target, property) => {
  Becomes((value) => (typeof value === 'string' ? madeOfText([value]) : value))(target, property);
  IfGiven()(target, property);
  IsList({ min: 1, max: MAX_VALUES })(target, property);
};

/** The filters of GET /conversations, which other requests use too. Every value is a text, so nothing is converted silently. */
export class ConversationFilterDto {
  @Listed() @IsOneOf(STATUSES, { each: true }) status?: Status[];
  @Listed() @IsOneOf(PRIORITIES, { each: true }) priority?: Priority[];
  @Listed() @IsVisibleText(128, { each: true }) teamId?: string[];
  @Listed() @IsVisibleText(128, { each: true }) inboxId?: string[];
  @Listed() @IsVisibleText(128, { each: true }) assigneeId?: string[];
  @Listed() @IsVisibleText(128, { each: true }) visitorId?: string[];
  @Listed() @IsVisibleText(128, { each: true }) companyId?: string[];
  @Listed() @IsVisibleText(100, { each: true }) tag?: string[];
  @IfGiven() @IsOneOf(['any', 'all']) tagMatch?: 'any' | 'all';
  @IfGiven() @IsInstant() createdAfter?: string;
  @IfGiven() @IsInstant() createdBefore?: string;
  @IfGiven() @IsInstant() updatedAfter?: string;
  @IfGiven() @IsInstant() updatedBefore?: string;
  /** `customAttributes[key]=value`, collected by the query string parser. */
  @Described({ type: 'object', maxProperties: MAX_VALUES, propertyNames: { maxLength: 64 }, additionalProperties: { type: 'string' } })
  @IfGiven()
  @IsRecord()
  customAttributes?: Record<string, unknown>;

  /** @param path of the filter in the request, for error messages. @throws ThreadlogError validation_failed */
  filter(path = ''): ConversationFilter {
    const ms = (text: string | undefined) => (text === undefined ? undefined : parseInstant(text));
    const filter = {
      status: this.status,
      priority: this.priority,
      teamId: this.teamId,
      inboxId: this.inboxId,
      assigneeId: this.assigneeId,
      visitorId: this.visitorId,
      companyId: this.companyId,
      tag: this.tag,
      tagMatch: this.tagMatch,
      createdAfter: ms(this.createdAfter),
      createdBefore: ms(this.createdBefore),
      updatedAfter: ms(this.updatedAfter),
      updatedBefore: ms(this.updatedBefore),
      customAttributes: this.attributes(path),
    };
    return Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined)) as ConversationFilter;
  }

  private attributes(path: string): Record<string, string> | undefined {
    if (this.customAttributes === undefined) return undefined;
    const errors: FieldError[] = [];
    const entries = Object.entries(this.customAttributes);
    if (entries.length > MAX_VALUES)
      errors.push({ field: fieldPath(['customAttributes'], path), message: `must have at most ${MAX_VALUES} names` });
    for (const [name, value] of entries)
      if (textFault(name, 64) !== undefined || typeof value !== 'string' || value.includes('\0') || value.length > MAX_ATTRIBUTE)
        errors.push({
          // In a query string the parameter has its name in brackets.
          field: path === '' ? `customAttributes[${name.slice(0, 64)}]` : fieldPath(['customAttributes', name], path),
          // A longer text is the value of no attribute.
          message: `must be one name and one value of at most ${MAX_ATTRIBUTE} characters`,
        });
    if (errors.length > 0) throw new ThreadlogError('validation_failed', undefined, { errors });
    return Object.fromEntries(entries) as Record<string, string>;
  }
}

/** By default times sort newest first, and priorities from urgent. */
export function sorting(by: Sort = 'updatedAt', order: 'asc' | 'desc' = by === 'priority' ? 'asc' : 'desc') {
  return { by, order };
}

/** The query string of GET /conversations. */
export class ListQueryDto extends ConversationFilterDto {
  /** Lists only what a search finds. */
  @IfGiven() @IsQuestion() q?: string;
  @IsOptional() @IsOneOf(SORTS) sort?: Sort;
  @IsOptional() @IsOneOf(['asc', 'desc']) order?: 'asc' | 'desc';
  // Checked by readPaging, which all lists use.
  @Described(PAGING_PARAMETERS.page) @IsOptional() page?: unknown;
  @Described(PAGING_PARAMETERS.limit) @IsOptional() limit?: unknown;
  @Described(PAGING_PARAMETERS.cursor) @IsOptional() cursor?: unknown;
  @Described(PAGING_PARAMETERS.total) @IsOptional() total?: unknown;

  sorting(): ReturnType<typeof sorting> {
    return sorting(this.sort, this.order);
  }

  paging(): Record<string, unknown> {
    return { page: this.page, limit: this.limit, cursor: this.cursor, total: this.total };
  }
}
