import { z } from 'zod';
import { type FieldError, ThreadlogError } from '../errors.js';
import { fieldPath } from '../texts/field-path.js';
import { parseStrictJson } from '../texts/strict-json.js';
import { typedText } from '../texts/unseen-characters.js';
import {
  attributeFaults,
  type AttributeValue,
  emailFault,
  type Fault,
  instantFault,
  isRecord,
  resourceIdFault,
  textFault,
  urlFault,
} from '../http/validation.js';
import * as conversation from '../conversations/conversation.js';
import { MAX_CONTENT } from '../conversations/message.dto.js';

/** The limits of the API, so that every imported conversation could also have come over HTTP. */
const MAX_ID = 200;
const MAX_SUBJECT = 500;
const MAX_TAG = 100;
const MAX_TURNS = 100_000;

/** A field that a check of the API validates. */
const checked = <T = string>(tell: (value: unknown) => string | readonly Fault[] | undefined) =>
  z.custom<T>().superRefine((value, context) => {
    const told = value === undefined ? 'is missing' : tell(value);
    const faults = typeof told === 'string' ? [{ path: [], message: told }] : (told ?? []);
    for (const { path, message } of faults) context.addIssue({ code: 'custom', path: [...path], message });
  });
const visible = (max: number) => checked((value) => textFault(value, max));
/** Keeps the file's spelling until the write: a dialogue is identified by the text in the file. */
const typed = (max: number) => checked((value) => textFault(asTyped(value), max));
const asTyped = (value: unknown) => (typeof value === 'string' ? typedText(value) : value);
const resourceId = checked(resourceIdFault);
const instant = checked(instantFault);
/** `null` means that the attribute is absent. */
const attributes = (max: number) => checked<Readonly<Record<string, AttributeValue | null>>>((value) => attributeFaults(value, max));

/** null counts as absent, as in requests that create something. */
const nullsAreAbsent = (value: unknown): unknown =>
  isRecord(value) ? Object.fromEntries(Object.entries(value).filter(([, field]) => field !== null)) : value;
const object = <T extends z.ZodRawShape>(shape: T) => z.preprocess(nullsAreAbsent, z.strictObject(shape));

const visitor = object({
  id: resourceId.optional(),
  userId: visible(256).optional(),
  email: checked(emailFault).optional(),
  name: typed(200).optional(),
  phone: visible(50).optional(),
  avatarUrl: checked(urlFault).optional(),
  plan: visible(100).optional(),
  companyId: resourceId.optional(),
  attributes: attributes(conversation.MAX_ATTRIBUTES).optional(),
});

const turn = object({
  from: z.enum(['visitor', 'agent', 'note']),
  text: visible(MAX_CONTENT),
  at: instant.optional(),
  agentId: resourceId.optional(),
}).refine(({ from, agentId }) => from !== 'visitor' || agentId === undefined, {
  path: ['agentId'],
  message: 'must be absent: the visitor is no agent',
});

const tag = checked((value) => {
  const text = asTyped(value);
  return text === '.' || text === '..' ? 'must not be . or .., which no address can name' : textFault(text, MAX_TAG);
});
const tags = z.array(tag).max(conversation.MAX_TAGS);

/** One line of an import file. docs/import.md explains it; a field that is not here makes the line a bad one. */
const schema = object({
  id: visible(MAX_ID),
  topics: tags.optional(),
  tags: tags.optional(),
  turns: z.array(turn).min(1, 'must not be empty').max(MAX_TURNS),
  visitor: visitor.optional(),
  status: z.enum(['open', 'pending', 'resolved', 'closed']).optional(),
  subject: visible(MAX_SUBJECT).optional(),
  priority: z.enum(conversation.PRIORITIES).optional(),
  customAttributes: attributes(conversation.MAX_ATTRIBUTES).optional(),
  createdAt: instant.optional(),
});

/** A conversation as a file has it. */
export type Dialogue = z.infer<typeof schema>;

/** Why a line cannot be imported, in words that hold no message text. */
export class BadDialogue extends Error {
  override readonly name = 'BadDialogue';
}

const SHOWN_REASONS = 3;

/**
 * One line of a file.
 * @param now ms; no time in the line may be later
 * @throws BadDialogue
 */
export function readDialogue(line: string, now: number): Dialogue {
  let value: unknown;
  try {
    value = parseStrictJson(line);
  } catch (error) {
    if (!(error instanceof ThreadlogError)) throw error;
    const { errors } = error.extra;
    throw errors === undefined ? new BadDialogue(error.message.replace(/^the body/, 'the line')) : badFields(errors);
  }
  const parsed = schema.safeParse(value, { reportInput: true });
  if (!parsed.success) throw badFields(parsed.error.issues.flatMap(faultsOf));
  // Each list is within the limit by itself. Refuse here what the conversation would refuse, before its visitor is created.
  if (new Set([...(parsed.data.topics ?? []), ...(parsed.data.tags ?? [])].map(typedText)).size > conversation.MAX_TAGS)
    throw new BadDialogue(`topics and tags: must be at most ${conversation.MAX_TAGS} together`);
  assertInOrder(parsed.data, now);
  return parsed.data;
}

function badFields(errors: readonly FieldError[]): BadDialogue {
  const reasons = errors.slice(0, SHOWN_REASONS).map(({ field, message }) => (field === '' ? message : `${field}: ${message}`));
  return new BadDialogue([...reasons, ...(errors.length > SHOWN_REASONS ? [`${errors.length - SHOWN_REASONS} more`] : [])].join('; '));
}

/** A zod issue in the API's wording. */
function faultsOf(issue: z.core.$ZodIssue): FieldError[] {
  const field = fieldPath(issue.path);
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((name) => ({ field: fieldPath([name], field), message: 'is not known here' }));
  const message = (): string => {
    if (issue.code === 'invalid_value') return issue.input === undefined ? 'is missing' : `must be one of ${issue.values.join(', ')}`;
    if (issue.code === 'invalid_type')
      return issue.input === undefined ? 'is missing' : `must be ${issue.expected === 'array' ? 'a list' : 'an object'}`;
    return issue.code === 'too_big' ? `must have at most ${issue.maximum} entries` : issue.message;
  };
  return [{ field, message: message() }];
}

/** History is imported unchanged or not at all: the log would silently move a time that goes back. */
function assertInOrder({ createdAt, turns }: Dialogue, now: number): void {
  let before = createdAt === undefined ? -Infinity : Date.parse(createdAt);
  if (before > now) throw new BadDialogue('createdAt: lies in the future');
  for (const [index, { at }] of turns.entries()) {
    if (at === undefined) continue;
    const time = Date.parse(at);
    if (time > now) throw new BadDialogue(`turns[${index}].at: lies in the future`);
    if (time < before) throw new BadDialogue(`turns[${index}].at: is before what comes before it`);
    before = time;
  }
}
