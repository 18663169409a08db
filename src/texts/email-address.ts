import { domainToASCII, domainToUnicode } from 'node:url';
import { isEmail } from 'class-validator';
import { UNSEEN } from './unseen-characters.js';

/* What counts as an e-mail address, and when two spellings are the same address. The address itself is kept as it was given. */

// Invisible characters would make two different addresses look the same.
const HAS_UNSEEN = new RegExp(`[${UNSEEN}]`, 'u');

/** Accepts hosts without a dot, such as root@localhost, and with an underscore, such as ada@mail_1.example.com. */
export const isEmailAddress = (value: unknown): value is string =>
  isEmail(value, { require_tld: false, allow_underscores: true }) && !HAS_UNSEEN.test(value as string);

// oxlint-disable-next-line no-control-regex -- ASCII is meant
const IS_ASCII = /^[\x00-\x7f]*$/;

/**
 * The form that all spellings of an address share: lower case, Unicode NFC, the domain in ASCII. For an ASCII address it is the address in
 * lower case.
 */
export function emailKey(address: string): string {
  const text = lower(address.trim().normalize('NFC'));
  if (IS_ASCII.test(text)) return text;
  const at = text.lastIndexOf('@') + 1;
  const domain = text.slice(at);
  // Empty for an invalid domain, which then stays as it is.
  const ascii = IS_ASCII.test(domain) ? domain : domainToASCII(domain);
  return `${text.slice(0, at)}${ascii === '' ? domain : ascii}`;
}

/**
 * The other keys under which earlier builds may have claimed an address: they took each spelling, in lower case, for a different address.
 * None for an ASCII address without an international domain.
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
/** In lower case a letter may become several characters, which NFC then composes. */
const lower = (text: string) => text.toLowerCase().normalize('NFC');
