import { ValidateNested } from 'class-validator';
import {
  Becomes,
  IfGiven,
  IfGivenOrWithout,
  instanceOf,
  IsFileName,
  IsHttpUrl,
  IsMediaType,
  IsNested,
  IsNestedList,
  IsNotBeside,
  IsOneOf,
  IsRecord,
  isRecord,
  IsVisibleText,
  IsWhole,
  madeOfText,
  NullIsAbsent,
} from '../http/validation.js';
import { Described } from '../http/request-schema.js';
import { CONTENT_TYPES } from './conversation.js';

/** Characters of a message; the body's size in bytes is limited too. */
export const MAX_CONTENT = 50_000;
const MAX_ATTACHMENTS = 20;
const MAX_ACTIONS = 10;

export class AttachmentDto {
  @IsFileName(255) name!: string;
  @IsHttpUrl() url!: string;
  @IsMediaType() type!: string;
  /** Bytes. */
  @IsWhole(0, Number.MAX_SAFE_INTEGER) size!: number;
}

export class CardActionDto {
  @IsVisibleText(100) label!: string;
  /** Either an address to open or the name of an action, not both: a button does one thing. */
  @IfGivenOrWithout('action')
  @IsHttpUrl()
  url?: string;
  @IfGiven()
  @IsNotBeside('url')
  @IsVisibleText(100)
  action?: string;
}

export class CardDto {
  @IsVisibleText(200) title!: string;
  @IfGiven() @IsVisibleText(2_000) description?: string;
  @IfGiven()
  @IsNestedList(CardActionDto, { max: MAX_ACTIONS })
  actions?: CardActionDto[];
}

export class TextMessageDto {
  @IsOneOf(['text']) type!: 'text';
  @IsVisibleText(MAX_CONTENT) content!: string;
}

export class AttachmentMessageDto {
  @IsOneOf(['attachment']) type!: 'attachment';
  /** The caption; attachments may stand without a caption. */
  @NullIsAbsent() @IsVisibleText(MAX_CONTENT) content?: string;
  @IsNestedList(AttachmentDto, { min: 1, max: MAX_ATTACHMENTS })
  attachments!: AttachmentDto[];
}

export class CardMessageDto {
  @IsOneOf(['card']) type!: 'card';
  @IsNested(CardDto)
  content!: CardDto;
}

/** Stands for a message of unknown type, so that the error lists the types. */
class UntypedMessageDto {
  @IsOneOf(CONTENT_TYPES) type!: string;
}

export type MessageDto = TextMessageDto | AttachmentMessageDto | CardMessageDto;

const CLASSES = { text: TextMessageDto, attachment: AttachmentMessageDto, card: CardMessageDto } as const;

/** A message in a request: a string is a text, an object names its type. */
export const IsMessage = (): PropertyDecorator => (target, property) => {
  Becomes(messageOf)(target, property);
  Described((of) => ({
    oneOf: [{ type: 'string', minLength: 1, maxLength: MAX_CONTENT }, of(TextMessageDto), of(AttachmentMessageDto), of(CardMessageDto)],
  }))(target, property);
  ValidateNested()(target, property);
  IsRecord('must be a text, or an object with its type')(target, property);
};

function messageOf(value: unknown): unknown {
  if (typeof value === 'string') return madeOfText(instanceOf(TextMessageDto, { type: 'text', content: value }));
  if (!isRecord(value)) return value;
  const type = value['type'];
  const known = type === 'text' || type === 'attachment' || type === 'card' ? CLASSES[type] : undefined;
  return known === undefined ? instanceOf(UntypedMessageDto, { type }) : instanceOf<object>(known, value);
}
