/**
 * A JSON value in the canonical form of RFC 8785: no white space, and the names of every object in the order of their UTF-16 code units, as
 * JavaScript compares texts. Numbers and texts are written as JSON.stringify writes them, which is what the RFC requires.
 * @param value from JSON.parse, nested no deeper than the caller's stack allows
 */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`).join(',')}}`;
}
