import { IsOptional } from 'class-validator';
import { ConversationFilterDto } from '../conversations/list-query.dto.js';
import { Described } from '../http/request-schema.js';
import { PAGING_PARAMETERS } from '../read-models/paging.js';
import { IsQuestion } from './question.rule.js';

/** The query string of GET /search. */
export class SearchQueryDto extends ConversationFilterDto {
  @IsQuestion() q!: string;
  // Checked by readPaging, which all lists use.
  @Described(PAGING_PARAMETERS.page) @IsOptional() page?: unknown;
  @Described(PAGING_PARAMETERS.limit) @IsOptional() limit?: unknown;
  @Described(PAGING_PARAMETERS.cursor) @IsOptional() cursor?: unknown;
  @Described(PAGING_PARAMETERS.total) @IsOptional() total?: unknown;

  paging(): Record<string, unknown> {
    return { page: this.page, limit: this.limit, cursor: this.cursor, total: this.total };
  }
}
