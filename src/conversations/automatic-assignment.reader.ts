import { type Kysely, sql } from 'kysely';
import type { Database } from '../database/database.js';
import type { FreeMember } from '../inboxes/agent-choice.js';
import type { Assignment } from '../inboxes/inbox.js';
import { inboxesTable } from '../inboxes/inbox.table.js';
import type { ReadModels } from '../read-models/read-models.js';
import { assigneesTable } from '../team/assignee.table.js';
import { automaticAssignmentsTable } from './automatic-assignment.table.js';
import { conversationsTable } from './conversation.table.js';

/** An inbox that assigns by itself, with its members who are online and not archived, in the order of its list. */
export interface AssigningInbox {
  readonly id: string;
  readonly mode: Assignment['mode'];
  readonly cap: number | null;
  readonly members: readonly FreeMember[];
}

/** An open conversation that nobody has. */
export interface WaitingConversation {
  readonly id: string;
  readonly inboxId: string;
  readonly takenFrom: string | null;
  /** The agents of the team whose queue the conversation is in; null when it is in no queue. */
  readonly team: readonly string[] | null;
  /** ms: since when the visitor waits, or else when the conversation was opened. */
  readonly since: number;
}

/** What automatic assignment sees of an organization: the read models, which the caller has waited for. */
export class AutomaticAssignmentReader {
  constructor(
    private readonly database: Kysely<Database>,
    private readonly readModels: ReadModels,
  ) {}

  /** The inboxes that assign by themselves and have a member online. One statement, so that all counts are of one moment. */
  async inboxes(organizationId: string): Promise<AssigningInbox[]> {
    const [inboxes, assignees, conversations, turns] = [
      this.readModels.view(inboxesTable),
      this.readModels.view(assigneesTable),
      this.readModels.view(conversationsTable),
      this.readModels.view(automaticAssignmentsTable),
    ];
    const { rows } = await sql<AssigningInbox>`
      with member as materialized (
        select i.id as inbox_id, i.state #>> '{assignment,mode}' as mode, (i.state #>> '{assignment,cap}')::int as cap,
          a.id, a.name, m.place
        from ${inboxes} i
        cross join lateral json_array_elements_text(i.state #> '{assignment,agentIds}') with ordinality m(id, place)
        join ${assignees} a on a.organization_id = i.organization_id and a.id = m.id
        where i.organization_id = ${organizationId} and not i.archived and i.state #>> '{assignment,mode}' <> 'manual'
          and a.type = 'agent' and not a.archived and a.state ->> 'availability' = 'online'
      ), load as (
        select assignee_id as id, count(*)::int as open from ${conversations} c
        where organization_id = ${organizationId} and status = 'open' and assignee_id in (select id from member) group by assignee_id
      )
      select m.inbox_id as id, m.mode, m.cap, json_agg(
        json_build_object('id', m.id, 'name', m.name, 'open', coalesce(l.open, 0), 'lastTurn', t.position) order by m.place
      ) as members
      from member m
      left join load l on l.id = m.id
      left join lateral (
        select position from ${turns} t
        where t.organization_id = ${organizationId} and t.inbox_id = m.inbox_id and t.agent_id = m.id
        order by position desc limit 1
      ) t on true
      group by m.inbox_id, m.mode, m.cap`.execute(this.database);
    return rows;
  }

  /** The conversations that wait for an agent in these inboxes, those that have waited longest first. @param after the last one seen */
  async waiting(
    organizationId: string,
    inboxIds: readonly string[],
    limit: number,
    after?: Pick<WaitingConversation, 'since' | 'id'>,
  ): Promise<WaitingConversation[]> {
    const since = sql`coalesce(c.waiting_since, c.created_at)`;
    // Each inbox is read by itself, in the order of the index `queue`, however many conversations wait in other inboxes.
    const { rows } = await sql<WaitingConversation>`
      select c.id, c.inbox_id as "inboxId", c.taken_from as "takenFrom", c.since,
        case when c.team_id is not null then coalesce(t.state -> 'agentIds', '[]') end as team
      from (
        select c.* from unnest(${inboxIds}::text[]) inbox(id)
        cross join lateral (
          select c.id, c.organization_id, c.inbox_id, c.taken_from, c.team_id, ${since} as since
          from ${this.readModels.view(conversationsTable)} c
          where c.organization_id = ${organizationId} and c.inbox_id = inbox.id and c.status = 'open' and c.assignee_id is null
            ${after === undefined ? sql`` : sql`and (${since}, c.id) > (${after.since}, ${after.id})`}
          order by ${since}, c.id limit ${limit}
        ) c
        order by c.since, c.id limit ${limit}
      ) c
      left join ${this.readModels.view(assigneesTable)} t on t.organization_id = c.organization_id and t.id = c.team_id
      order by c.since, c.id`.execute(this.database);
    return rows;
  }
}
