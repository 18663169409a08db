/** Characters of a name that an error shows: a name may be as long as the body. */
const SHOWN = 64;

/** A field's path in errors, such as `tags[2]` or `message.attachments[0].url`. @param below the path to which the parts are added */
export function fieldPath(parts: readonly PropertyKey[], below = ''): string {
  return parts.reduce<string>((path, part) => {
    if (typeof part === 'number') return `${path}[${part}]`;
    const name = String(part);
    const shown = name.length > SHOWN ? `${name.slice(0, SHOWN)}…` : name;
    return path === '' ? shown : `${path}.${shown}`;
  }, below);
}
