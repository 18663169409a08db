import { emailKey } from '../texts/email-address.js';
import { ERASED } from '../security/sealing.js';
import { foldTable, type FoldRow } from '../read-models/fold-table.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { evolveVisitor, initialVisitor, type Visitor } from './visitor.js';

/** Personal fields are in plain text, and ERASED once the key is destroyed. */
export interface VisitorRow extends FoldRow<Visitor<unknown>> {
  name: string | null;
  user_id: string | null;
  email: string | null;
  /** The address in the form that is compared; null once it is erased. */
  email_key: string | null;
  phone: string | null;
  avatar_url: string | null;
  plan: string | null;
  company_id: string | null;
}

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);

export const visitorsTable = foldTable<Visitor<unknown>, VisitorRow>({
  name: 'visitors',
  group: CORE_GROUP,
  version: 1,
  aggregate: { kind: 'visitor', initial: initialVisitor, evolve: evolveVisitor },
  columns: {
    name: 'text',
    user_id: 'text collate "C"',
    email: 'text',
    email_key: 'text collate "C"',
    phone: 'text',
    avatar_url: 'text',
    plan: 'text',
    company_id: 'text collate "C"',
  },
  values: (v) => ({
    name: text(v.name),
    archived: v.archived,
    user_id: v.userId,
    email: text(v.email),
    // An erased address belongs to nobody.
    email_key: typeof v.email !== 'string' || v.email === ERASED ? null : emailKey(v.email),
    phone: text(v.phone),
    avatar_url: text(v.avatarUrl),
    plan: v.plan,
    company_id: v.companyId,
  }),
  filters: ['company_id'],
  lookups: ['user_id', 'email_key'],
});
