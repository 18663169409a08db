/** A field that differs between two answers. Null stands for a field that is not there. */
export interface FieldChange {
  /** Its path, such as `assignee.name`, `tags` or `customAttributes.plan`. */
  readonly field: string;
  readonly before: unknown;
  readonly after: unknown;
}

type Fields = Readonly<Record<string, unknown>>;

/** A name that a path can show as it is; every other is quoted, so that two fields never have the same path. */
const PLAIN = /^[^.[\]"\s]+$/;

/**
 * What differs between two answers, field by field, in the order of the fields. Objects are compared within, lists and everything else as a
 * whole; an object that is not there on one side is one change.
 */
export function changesBetween(before: object, after: object): FieldChange[] {
  const found: FieldChange[] = [];
  compare(before as Fields, after as Fields, '', found);
  return found;
}

function compare(before: Fields, after: Fields, below: string, found: FieldChange[]): void {
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const field = pathOf(name, below);
    const [left, right] = [valueOf(before, name), valueOf(after, name)];
    if (isFields(left) && isFields(right)) compare(left, right, field, found);
    else if (!isSame(left, right)) found.push({ field, before: left, after: right });
  }
}

function pathOf(name: string, below: string): string {
  if (!PLAIN.test(name)) return `${below}[${JSON.stringify(name)}]`;
  return below === '' ? name : `${below}.${name}`;
}

const valueOf = (fields: Fields, name: string): unknown => (Object.hasOwn(fields, name) ? (fields[name] ?? null) : null);

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value);

function isSame(left: unknown, right: unknown): boolean {
  if (Array.isArray(left) && Array.isArray(right)) return left.length === right.length && left.every((one, i) => isSame(one, right[i]));
  if (!isFields(left) || !isFields(right)) return left === right;
  const names = new Set([...Object.keys(left), ...Object.keys(right)]);
  return [...names].every((name) => isSame(valueOf(left, name), valueOf(right, name)));
}
