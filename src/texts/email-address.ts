import { domainToASCII, domainToUnicode } from 'node:url';
import { isEmail } from 'class-validator';
import { UNSEEN } from './unseen-characters.js';

/* What an e-mail address is, and when two spellings are one address. The address itself is kept as it was given. */

// What cannot be seen makes two addresses that look like one.
const HAS_UNSEEN = new RegExp(`[${UNSEEN}]`, 'u');

/** Also of a host without a dot, such as root@localhost, and of one with an underscore, such as ada@mail_1.example.com. */
export const isEmailAddress = (value: unknown): value is string =>
  isEmail(value, { require_tld: false, allow_underscores: true }) && !HAS_UNSEEN.test(value as string);

// oxlint-disable-next-line no-control-regex -- ASCII is meant
const IS_ASCII = /^[\x00-\x7f]*$/;

/**
 * The text that all spellings of one address share: lower case, Unicode NFC, the domain in its ASCII form. An address in ASCII is
 * its own key in lower case.
 */
export function emailKey(address: string): string {
  const text = lower(address.trim().normalize('NFC'));
  if (IS_ASCII.test(text)) return text;
  const at = text.lastIndexOf('@') + 1;
  const domain = text.slice(at);
  // Empty for what is no domain, which then stays as it is.
  const ascii = IS_ASCII.test(domain) ? domain : domainToASCII(domain);
  return `${text.slice(0, at)}${ascii === '' ? domain : ascii}`;
}

/**
 * The other keys that an earlier build may have claimed an address under: it took each spelling, in lower case, for an address of its own.
 * None for an address in ASCII without an international domain.
 */
export function formerEmailKeys(address: string): readonly string[] {
  const key = emailKey(address);
  if (IS_ASCII.test(key) && !key.includes('xn--')) return NONE;
  const at = key.lastIndexOf('@') + 1;
  const domain = key.slice(at);
  const unicode = domainToUnicode(domain);
  const given = address.trim().toLowerCase();
  const spellings = FORMS.flatMap((form) => {
    const local = key.slice(0, at).normalize(form);
    return [local + domain, ...(unicode === '' ? [] : FORMS.map((other) => local + unicode.normalize(other)))];
  });
  return [...new Set([given, ...spellings])].filter((former) => former !== key);
}

const NONE: readonly string[] = [];
const FORMS = ['NFC', 'NFD'] as const;
/** A letter in lower case may be several that compose. */
const lower = (text: string) => text.toLowerCase().normalize('NFC');
