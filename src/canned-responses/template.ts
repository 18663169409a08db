import { ThreadlogError } from '../errors.js';
import { saysNothing } from '../texts/unseen-characters.js';

/*
 * The placeholders of a canned response: {{visitor.name}}, or {{visitor.name | "there"}} with a fallback for visitors without a name. Plain
 * replacement over an allow-list, in one pass: inserted values are never searched for placeholders.
 */

/** The variables that a placeholder may name, besides `visitor.attributes.` with an attribute's name. */
export const VARIABLES = ['visitor.name', 'visitor.email', 'agent.name', 'company.name'] as const;
type Variable = (typeof VARIABLES)[number];

const ATTRIBUTE = 'visitor.attributes.';
/** The longest attribute name, in characters. */
const MAX_ATTRIBUTE_NAME = 64;

/** The values of the variables; null for a missing value. */
export interface TemplateValues {
  readonly visitor: {
    readonly name: string | null;
    readonly email: string | null;
    readonly attributes: Readonly<Record<string, unknown>>;
  };
  readonly agent: { readonly name: string | null };
  readonly company: { readonly name: string | null };
}

export interface Rendered {
  readonly text: string;
  /** The variables without a value or with a blank one, each once, in the order of the text; also those that a fallback replaces. */
  readonly missing: string[];
}

type Part = string | { readonly variable: string; readonly fallback: string };

/**
 * Splits the content into texts and placeholders. Refuses a {{ without a placeholder, since it is a slip in every case we know.
 * @throws ThreadlogError unknown_variable, naming the first one
 */
export function parseTemplate(content: string): readonly Part[] {
  const parts: Part[] = [];
  let at = 0;
  for (let start = content.indexOf('{{'); start >= 0; start = content.indexOf('{{', at)) {
    if (start > at) parts.push(content.slice(at, start));
    // Each of the three patterns continues where the one before ended and none backtracks, so the time is linear.
    const name = /[^{}|"]*/y;
    const fallback = /\|\s*"([^"]*)"\s*/y;
    name.lastIndex = start + 2;
    const variable = (name.exec(content)?.[0] ?? '').trim();
    fallback.lastIndex = name.lastIndex;
    const given = fallback.exec(content);
    at = given === null ? name.lastIndex : fallback.lastIndex;
    if (!content.startsWith('}}', at)) throw refused(`{{${variable.slice(0, 100)} is not written as {{name}} or {{name | "fallback"}}`);
    if (!isKnown(variable))
      throw refused(`{{${variable.slice(0, 100)}}} is none of ${VARIABLES.join(', ')} and ${ATTRIBUTE} with an attribute's name`);
    parts.push({ variable, fallback: given?.[1] ?? '' });
    at += 2;
  }
  if (at < content.length) parts.push(content.slice(at));
  return parts;
}

/** @param content that parseTemplate() accepts */
export function renderTemplate(content: string, values: TemplateValues): Rendered {
  const missing = new Set<string>();
  const text = parseTemplate(content).map((part) => {
    if (typeof part === 'string') return part;
    const value = valueOf(part.variable, values);
    // A blank value greets nobody: it counts as missing.
    if (value !== null && !saysNothing(value)) return value;
    missing.add(part.variable);
    return part.fallback;
  });
  return { text: text.join(''), missing: [...missing] };
}

function isKnown(variable: string): boolean {
  if (isVariable(variable)) return true;
  const length = variable.length - ATTRIBUTE.length;
  return variable.startsWith(ATTRIBUTE) && length > 0 && length <= MAX_ATTRIBUTE_NAME * 2;
}

const isVariable = (variable: string): variable is Variable => VARIABLES.some((one) => one === variable);

function valueOf(variable: string, { visitor, agent, company }: TemplateValues): string | null {
  if (!isVariable(variable)) {
    const name = variable.slice(ATTRIBUTE.length);
    // Own names only: `constructor` is not an attribute unless somebody set it.
    const value = Object.hasOwn(visitor.attributes, name) ? visitor.attributes[name] : null;
    return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : null;
  }
  switch (variable) {
    case 'visitor.name':
      return visitor.name;
    case 'visitor.email':
      return visitor.email;
    case 'agent.name':
      return agent.name;
    case 'company.name':
      return company.name;
  }
}

const refused = (message: string) => new ThreadlogError('unknown_variable', undefined, { errors: [{ field: 'content', message }] });
