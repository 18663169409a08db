import { rulesTable } from '../src/automation/rule.table.js';
import type { Backend } from '../src/backend.js';
import type { Position } from '../src/event-store/event-store.js';
import { isMissingRelation } from '../src/database/missing-relation.js';
import { CORE_GROUP } from '../src/read-models/groups.js';
import { StoreUnavailable } from '../src/event-store/event-store.js';

/** How long one look waits for the list of rules (ms): less than a lease, which is not renewed meanwhile. */
const LIST_MS = 5_000;

/**
 * The ids of an organization's rules from their list, once it includes a position. It has every rule that was ever made, archived ones too.
 * @throws StoreUnavailable when the list is behind or not there, for a caller that tries again
 */
export function ruleIdsOf({ database, readModels, checkpoints }: Pick<Backend, 'database' | 'readModels' | 'checkpoints'>) {
  return async (organizationId: string, position: Position): Promise<readonly string[]> => {
    if ((await checkpoints.waitFor(CORE_GROUP, position, LIST_MS)) !== 'reached') throw new StoreUnavailable('the list of rules is behind');
    try {
      const rows = await database
        .selectFrom(readModels.view(rulesTable).as('r'))
        .select('r.id')
        .where('r.organization_id', '=', organizationId)
        .execute();
      return rows.map(({ id }) => id);
    } catch (error) {
      // Read models may be dropped and made anew beside the reactor, which waits for them.
      if (isMissingRelation(error)) throw new StoreUnavailable('the list of rules is being made anew', { cause: error });
      throw error;
    }
  };
}
