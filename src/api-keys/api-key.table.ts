import { foldTable, type FoldRow } from '../read-models/fold-table.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { apiKeyAggregate, type ApiKey } from './api-key.js';

/** Never holds the key or its hash. Archived means revoked. */
export interface ApiKeyRow extends FoldRow<ApiKey> {
  name: string;
  agent_id: string | null;
}

export const apiKeysTable = foldTable<ApiKey, ApiKeyRow>({
  name: 'api_keys',
  group: CORE_GROUP,
  version: 1,
  aggregate: apiKeyAggregate,
  columns: { name: 'text not null', agent_id: 'text collate "C"' },
  values: (k) => ({ name: k.name, archived: k.revokedAt !== null, agent_id: k.agentId }),
});
