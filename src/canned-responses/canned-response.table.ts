import { foldTable, type FoldRow } from '../read-models/fold-table.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { cannedResponseAggregate, type CannedResponse, searchedShortcut } from './canned-response.js';

/** `name` is the title. */
export interface CannedResponseRow extends FoldRow<CannedResponse> {
  name: string;
  /** In the form in which shortcuts are compared; null for a response that was never created. */
  shortcut: string | null;
}

export const cannedResponsesTable = foldTable<CannedResponse, CannedResponseRow>({
  name: 'canned_responses',
  group: CORE_GROUP,
  version: 1,
  aggregate: cannedResponseAggregate,
  columns: { name: 'text not null', shortcut: 'text collate "C"' },
  // A response that was never created gets no shortcut here, and lists leave out rows without a shortcut.
  values: (r) => ({ name: r.title, archived: r.archived, shortcut: r.exists ? searchedShortcut(r.shortcut) : null }),
  lookups: ['shortcut'],
});
