import type { FieldError } from '../errors.js';
import { fieldPath } from './field-path.js';

/** A JSON number with more digits than every double keeps, or with an exponent: JSON.parse may have to round it. */
const MAY_BE_ROUNDED = /[eE]|\d(?:\.?\d){15}/;

/** Whether JSON.parse would change the value of this literal. It keeps 0.1, 1.10 and 100e-2; it changes 1e400 and 1e-400. */
export function isRounded(literal: string): boolean {
  if (!MAY_BE_ROUNDED.test(literal)) return false;
  const value = Number(literal);
  // The shortest text for this double: whoever reads the number back sees these digits.
  return !Number.isFinite(value) || decimal(literal) !== decimal(String(value));
}

const NUMBER = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/;

/** One spelling for each decimal value: its digits without zeros at either end, and the power of ten that multiplies them. */
function decimal(literal: string): string {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = NUMBER.exec(literal) ?? [];
  const digits = trimZeros(whole + fraction);
  if (digits.text === '') return '0';
  return `${sign}${digits.text}e${Number(exponent) - fraction.length + digits.dropped}`;
}

/** `dropped`: the number of trailing zeros. Written as loops, since a pattern for trailing zeros takes quadratic time. */
function trimZeros(digits: string): { readonly text: string; readonly dropped: number } {
  let from = 0;
  let to = digits.length;
  while (from < to && digits[from] === '0') from++;
  while (to > from && digits[to - 1] === '0') to--;
  return { text: digits.slice(from, to), dropped: digits.length - to };
}

/**
 * The numbers of a JSON text that JSON.parse would round, with their paths.
 * @param text valid JSON
 * @param most how many to report
 */
export function roundedNumbers(text: string, most: number): FieldError[] {
  const errors: FieldError[] = [];
  /** The path to the next value in each open object or list. */
  const path: PropertyKey[] = [];
  let name: string | undefined;
  const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:,]|-?\d[\d.eE+-]*/gs;
  for (let match = token.exec(text); match !== null && errors.length < most; match = token.exec(text)) {
    const [found] = match;
    const last = path.length - 1;
    if (found === '{') path.push('');
    else if (found === '[') path.push(0);
    else if (found === '}' || found === ']') path.pop();
    else if (found === ':') path[last] = JSON.parse(name ?? '""') as string;
    else if (found === ',') {
      const index = path[last];
      if (typeof index === 'number') path[last] = index + 1;
    } else if (found.startsWith('"')) name = found;
    else if (isRounded(found)) errors.push({ field: fieldPath(path), message: messageOf(found) });
  }
  return errors;
}

function messageOf(literal: string): string {
  const value = Number(literal);
  return Number.isFinite(value) ? `is a number that would be rounded to ${value}` : 'is too large a number to be kept';
}
