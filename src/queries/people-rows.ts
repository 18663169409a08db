import type { ApiKey } from '../api-keys/api-key.js';
import type { CannedResponse } from '../canned-responses/canned-response.js';
import type { Company } from '../companies/company.js';
import type { Inbox } from '../inboxes/inbox.js';
import type { Organization } from '../organizations/organization.js';
import type { AssigneeState } from '../team/assignee.js';
import type { Visitor } from '../visitors/visitor.js';

/**
 * A row of the people read models: the fold of one stream, whole in `state`, with what joins, filters and sorts need as columns of their
 * own. Times are ms since 1970.
 */
interface PeopleRow<S> {
  organization_id: string;
  id: string;
  revision: number;
  /** What lists sort names by: lower case, '' when there is no name. */
  sort_name: string;
  archived: boolean;
  created_at: number;
  updated_at: number;
  state: S;
}

/** read_v<N>.visitors: personal fields in plain text, ERASED once the key is gone. */
export interface VisitorRow extends PeopleRow<Visitor<unknown>> {
  name: string | null;
  user_id: string | null;
  email: string | null;
  /** The address as it is compared; null also when it was erased. */
  email_key: string | null;
  phone: string | null;
  avatar_url: string | null;
  plan: string | null;
  company_id: string | null;
}

/** read_v<N>.companies */
export interface CompanyRow extends PeopleRow<Company> {
  name: string;
}

/** read_v<N>.inboxes; which one is the default stands in the organization's row. */
export interface InboxRow extends PeopleRow<Inbox> {
  name: string;
}

/** read_v<N>.assignees: agents and teams. */
export interface AssigneeRow extends PeopleRow<AssigneeState> {
  type: 'agent' | 'team';
  name: string;
}

/** read_v<N>.api_keys: never the key or its hash. Archived: revoked. */
export interface ApiKeyRow extends PeopleRow<ApiKey> {
  name: string;
  agent_id: string | null;
}

/** read_v<N>.canned_responses: `name` is the title. */
export interface CannedResponseRow extends PeopleRow<CannedResponse> {
  name: string;
  /** In the form in which shortcuts are compared; null for one that was never made. */
  shortcut: string | null;
}

/** read_v<N>.organizations: the id is the organization's own. */
export interface OrganizationRow extends PeopleRow<Organization> {
  name: string;
  default_inbox_id: string | null;
}
