import { ArrayMaxSize, ArrayMinSize, IsIn, IsInt, IsObject, Max, Min, ValidateIf, ValidateNested } from 'class-validator';
import {
  Becomes,
  IfGiven,
  instanceOf,
  IsFileName,
  IsHttpUrl,
  IsMediaType,
  IsNested,
  IsNestedList,
  IsNotBeside,
  IsVisibleText,
} from '../platform/validation.js';
import { Described } from '../platform/request-schema.js';
import { CONTENT_TYPES } from './conversation.js';

/** Characters of a message; also bounded by the body's size in bytes. */
export const MAX_CONTENT = 50_000;
const MAX_ATTACHMENTS = 20;
const MAX_ACTIONS = 10;

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);

export class AttachmentDto {
  @IsFileName(255) name!: string;
  @IsHttpUrl() url!: string;
  @IsMediaType() type!: string;
  /** Bytes. */
  @IsInt() @Min(0) @Max(Number.MAX_SAFE_INTEGER) size!: number;
}

export class CardActionDto {
  @IsVisibleText(100) label!: string;
  /** Either an address to open or the name of an action, not both: a button does one thing. */
  @ValidateIf((action: CardActionDto) => action.action === undefined || action.url !== undefined)
  @IsHttpUrl()
  url?: string;
  @ValidateIf((action: CardActionDto) => action.url === undefined || action.action !== undefined)
  @IsVisibleText(100)
  @IsNotBeside('url')
  action?: string;
}

export class CardDto {
  @IsVisibleText(200) title!: string;
  @IfGiven() @IsVisibleText(2_000) description?: string;
  @IfGiven()
  @IsNestedList(CardActionDto)
  @ArrayMaxSize(MAX_ACTIONS)
  actions?: CardActionDto[];
}

export class TextMessageDto {
  @IsIn(['text']) type!: 'text';
  @IsVisibleText(MAX_CONTENT) content!: string;
}

export class AttachmentMessageDto {
  @IsIn(['attachment']) type!: 'attachment';
  @IsVisibleText(MAX_CONTENT) content!: string;
  @IsNestedList(AttachmentDto)
  @ArrayMinSize(1)
  @ArrayMaxSize(MAX_ATTACHMENTS)
  attachments!: AttachmentDto[];
}

export class CardMessageDto {
  @IsIn(['card']) type!: 'card';
  @IsNested(CardDto)
  content!: CardDto;
}

/** What is no message of any type: names what the types are. */
class UntypedMessageDto {
  @IsIn(CONTENT_TYPES) type!: string;
}

export type MessageDto = TextMessageDto | AttachmentMessageDto | CardMessageDto;

const CLASSES = { text: TextMessageDto, attachment: AttachmentMessageDto, card: CardMessageDto } as const;

/** A message in a request: a string is a text, an object says its type. */
export const IsMessage = (): PropertyDecorator => (target, property) => {
  Becomes(messageOf)(target, property);
  Described((of) => ({
    oneOf: [{ type: 'string', minLength: 1, maxLength: MAX_CONTENT }, of(TextMessageDto), of(AttachmentMessageDto), of(CardMessageDto)],
  }))(target, property);
  // Without it an empty list would pass: nothing in it is invalid.
  IsObject({ message: 'message must be a text, or an object with its type' })(target, property);
  ValidateNested()(target, property);
};

function messageOf(value: unknown): unknown {
  if (typeof value === 'string') return instanceOf(TextMessageDto, { type: 'text', content: value });
  if (!isRecord(value)) return value;
  const type = value['type'];
  const known = type === 'text' || type === 'attachment' || type === 'card' ? CLASSES[type] : undefined;
  return known === undefined ? instanceOf(UntypedMessageDto, { type }) : instanceOf<object>(known, value);
}
