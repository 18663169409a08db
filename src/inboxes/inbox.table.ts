import { foldTable, type FoldRow } from '../read-models/fold-table.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { inboxAggregate, type Inbox } from './inbox.js';

/** The organization's row tells which inbox is the default. */
export interface InboxRow extends FoldRow<Inbox> {
  name: string;
}

export const inboxesTable = foldTable<Inbox, InboxRow>({
  name: 'inboxes',
  group: CORE_GROUP,
  version: 1,
  aggregate: inboxAggregate,
  columns: { name: 'text not null' },
  values: ({ name, archived }) => ({ name, archived }),
});
