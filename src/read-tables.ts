import { apiKeysTable } from './api-keys/api-key.table.js';
import { eventsTable } from './audit/events.table.js';
import { cannedResponsesTable } from './canned-responses/canned-response.table.js';
import { companiesTable } from './companies/company.table.js';
import { conversationsTable } from './conversations/conversation.table.js';
import { inboxesTable } from './inboxes/inbox.table.js';
import { organizationsTable } from './organizations/organization.table.js';
import type { ReadTable } from './read-models/table.js';
import { assigneesTable } from './team/assignee.table.js';
import { viewsTable } from './views/view.table.js';
import { visitorsTable } from './visitors/visitor.table.js';

/** Every table of every read model of this build. */
export const READ_TABLES: readonly ReadTable[] = [
  conversationsTable,
  visitorsTable,
  companiesTable,
  inboxesTable,
  assigneesTable,
  apiKeysTable,
  cannedResponsesTable,
  viewsTable,
  organizationsTable,
  eventsTable,
];
