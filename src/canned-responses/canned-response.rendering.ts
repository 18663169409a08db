import { companyAggregate } from '../companies/company.js';
import { conversationAggregate } from '../conversations/conversation.js';
import type { Transactor } from '../event-store/transact.js';
import type { VisitorKeys } from '../platform/visitor-keys.js';
import { visitorAggregate } from '../visitors/visitor.js';
import { openVisitor } from '../visitors/visitor.opening.js';
import { cannedResponseAggregate } from './canned-response.js';
import { type Rendered, renderTemplate } from './template.js';

/** Fills canned responses with the values of a conversation, as they are at this moment. */
export class CannedResponseRenderer {
  constructor(
    private readonly transactor: Transactor,
    private readonly keys: VisitorKeys,
  ) {}

  /** Undefined when no response has the id, or when it is archived. */
  async content(organizationId: string, id: string): Promise<string | undefined> {
    const found = await this.transactor.load(cannedResponseAggregate, organizationId, id);
    return found?.state.exists === true && !found.state.archived ? found.state.content : undefined;
  }

  /**
   * @param agentName of who acts
   * @returns undefined when there is no such conversation
   */
  async render(organizationId: string, content: string, conversationId: string, agentName: string): Promise<Rendered | undefined> {
    // A conversation's visitor never changes, so any memory of it will do.
    const conversation = await this.transactor.load(conversationAggregate, organizationId, conversationId, Infinity);
    if (conversation === undefined) return undefined;
    const { visitorId, keyId } = conversation.state;
    const [visitor, key] = await Promise.all([
      this.transactor.load(visitorAggregate, organizationId, visitorId),
      this.keys.find(organizationId, keyId),
    ]);
    // Of an erased visitor there are no values, and no word that stands for them either.
    const opened = visitor === undefined || key === undefined ? undefined : openVisitor(visitor.state, key);
    const companyId = visitor?.state.companyId ?? null;
    const company = companyId === null ? undefined : await this.transactor.load(companyAggregate, organizationId, companyId);
    return renderTemplate(content, {
      visitor: { name: text(opened?.name), email: text(opened?.email), attributes: opened?.attributes ?? {} },
      agent: { name: agentName },
      company: { name: company?.state.name ?? null },
    });
  }
}

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);
