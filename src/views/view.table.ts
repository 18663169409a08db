import { foldTable, type FoldRow } from '../read-models/fold-table.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { type View, viewAggregate, type ViewOwner } from './view.js';

export interface ViewRow extends FoldRow<View> {
  name: string;
  /** EVERYONE, or its owner. */
  visible_to: string;
}

export const EVERYONE = 'everyone';
/** An owner as one text. No type of owner contains a space, so no two owners have the same text. */
export const ownerKey = ({ type, id }: ViewOwner): string => `${type} ${id}`;

export const viewsTable = foldTable<View, ViewRow>({
  name: 'saved_views',
  group: CORE_GROUP,
  version: 1,
  aggregate: viewAggregate,
  columns: { name: 'text not null', visible_to: 'text collate "C" not null' },
  values: ({ name, archived, shared, owner }) => ({ name, archived, visible_to: shared ? EVERYONE : ownerKey(owner) }),
  filters: ['visible_to'],
});
