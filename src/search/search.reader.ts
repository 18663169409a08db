import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, sql } from 'kysely';
import { type ConversationSummary, messageAnswer } from '../conversations/conversation.answer.js';
import { type ConversationFilter, filterOf, summariesOf } from '../conversations/conversation.list.js';
import type { LastMessage } from '../conversations/conversation.js';
import type { Unsealed } from '../conversations/conversation.sealing.js';
import { type Database, QUESTIONS } from '../database/database.js';
import { nextTurn } from '../pause.js';
import { Cursors, type PageMeta, pageOfRows, readPaging } from '../read-models/paging.js';
import { ReadModels } from '../read-models/read-models.js';
import { highlightsOf } from './highlight.js';
import { questionOf, type SearchQuestion, wantedOf } from './question.js';
import type { HitAnswer } from './search.answer.js';
import { type Candidate, candidatesOf, inOrder } from './search.candidates.js';
import { textsOfConversation, textsOfMessage, textsOfVisitor } from './searched-texts.js';
import { inSearch, SEARCH_PLANNING } from './search.session.js';
import { searchMessagesTable } from './search.tables.js';

/** A search of one organization. */
export interface Search {
  readonly organizationId: string;
  readonly q: string;
  readonly filter: ConversationFilter;
  /** page, limit, cursor, total, as in the query string */
  readonly paging: Readonly<Record<string, unknown>>;
  /** True for roles that may not read message contents. Their search ignores messages. */
  readonly withhold: boolean;
}

/** A word may be any piece of these. */
const PIECES: ReadonlySet<string> = new Set(['visitor.name', 'visitor.email']);

/** Finds conversations by words. */
@Injectable()
export class SearchReader {
  constructor(
    @Inject(QUESTIONS) private readonly questions: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
    @Inject(Cursors) private readonly cursors: Cursors,
  ) {}

  /** @throws ThreadlogError validation_failed, limit_exceeded, rate_limited */
  async search({ organizationId, q, filter, paging: given, withhold }: Search): Promise<{ data: HitAnswer[]; meta: PageMeta }> {
    const scope = JSON.stringify(['search', organizationId, q, filter, withhold]);
    const paging = readPaging(given, this.cursors, scope);
    const question = questionOf(q);
    const asked = { readModels: this.readModels, organizationId, question, messages: !withhold };
    const condition = filterOf(this.readModels, organizationId, filter);
    return await inSearch(this.questions, organizationId, SEARCH_PLANNING, async (session) => {
      const isEmpty = Object.keys(filter).length === 0;
      const { candidates, complete } = await candidatesOf(session, asked, { condition, isEmpty });
      const begin = paging.after === undefined ? (paging.page - 1) * paging.limit : firstAfter(candidates, paging.after);
      const total = paging.withTotal ? candidates.length : undefined;
      const { shown, meta } = pageOfRows(paging, candidates.slice(begin, begin + paging.limit + 1), total, ({ tier, rank, at, id }) =>
        this.cursors.sign(scope, [tier, rank, at, id]),
      );
      const data = await this.#hits(session, organizationId, question, shown, withhold);
      return { data, meta: total === undefined || complete ? meta : { ...meta, totalIsExact: false } };
    });
  }

  async #hits(
    session: Kysely<Database>,
    organizationId: string,
    question: SearchQuestion,
    shown: readonly Candidate[],
    withhold: boolean,
  ): Promise<HitAnswer[]> {
    const ids = shown.map(({ id }) => id);
    const summaries = await summariesOf(session, this.readModels, organizationId, ids, withhold);
    const messages = await this.#messages(session, organizationId, shown);
    const hits: HitAnswer[] = [];
    for (const { id } of shown) {
      const conversation = summaries.get(id);
      // The list may be older than the index of words.
      if (conversation === undefined) continue;
      hits.push(hitOf(question, conversation, messages.get(id)));
      // Long texts take some 50 ms each, in which nothing else would be answered.
      await nextTurn();
    }
    return hits;
  }

  async #messages(
    session: Kysely<Database>,
    organizationId: string,
    shown: readonly Candidate[],
  ): Promise<ReadonlyMap<string, LastMessage<Unsealed>>> {
    const wanted = shown.filter(({ message }) => message !== undefined);
    if (wanted.length === 0) return new Map();
    const { rows } = await sql<{ id: string; message: LastMessage<Unsealed> }>`
      select m.conversation_id as id, m.message
      from unnest(${wanted.map(({ id }) => id)}::text[], ${wanted.map(({ message }) => message)}::int[]) as wanted(id, revision)
      join ${this.readModels.view(searchMessagesTable)} m
        on m.organization_id = ${organizationId} and m.conversation_id = wanted.id and m.revision = wanted.revision`.execute(session);
    return new Map(rows.map(({ id, message }) => [id, message]));
  }
}

function hitOf(question: SearchQuestion, conversation: ConversationSummary, message: LastMessage<Unsealed> | undefined): HitAnswer {
  const texts = [
    ...textsOfVisitor(conversation.visitor),
    ...textsOfConversation(conversation),
    ...(message === undefined ? [] : textsOfMessage(message)),
  ];
  const highlights = highlightsOf(wantedOf(question), texts, PIECES).map(({ field, text, ranges }) => ({
    field,
    text,
    ranges: ranges.map(([from, to]): [number, number] => [from, to]),
  }));
  return { conversation, ...(message === undefined ? {} : { message: messageAnswer(message, false) }), highlights };
}

/** The first candidate after the last one of the page before. */
function firstAfter(candidates: readonly Candidate[], [tier, rank, at, id]: readonly (string | number | null)[]): number {
  const last: Candidate = { tier: Number(tier), rank: Number(rank), at: Number(at), id: String(id), message: undefined };
  const next = candidates.findIndex((one) => inOrder(one, last) > 0);
  return next === -1 ? candidates.length : next;
}
