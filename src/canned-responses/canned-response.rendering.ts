import { Inject, Injectable } from '@nestjs/common';
import { companyAggregate } from '../companies/company.js';
import { conversationAggregate } from '../conversations/conversation.js';
import type { CommandContext } from '../commands/command-context.js';
import { Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import { KeptAnswers } from '../commands/idempotency.js';
import { derivedId } from '../ids.js';
import type { Sealed } from '../security/sealing.js';
import { VisitorKeys } from '../security/visitor-keys.js';
import { visitorAggregate } from '../visitors/visitor.js';
import { unsealVisitor } from '../visitors/visitor.sealing.js';
import { cannedResponseAggregate } from './canned-response.js';
import { type Rendered, renderTemplate } from './template.js';

/** The rendered text that answered a keyed request: sealed, since it may hold the visitor's data, unless the visitor was erased before. */
type KeptRendering = { readonly keyId: string; readonly sealed: Sealed } | { readonly rendered: Rendered };

const renderingId = (commandId: string) => derivedId('rendering', commandId);
const renderingContext = (commandId: string) => `canned-response.rendering ${commandId}`;

/** Fills canned responses with the current values of a conversation. */
@Injectable()
export class CannedResponseRenderer {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
    @Inject(KeptAnswers) private readonly kept: KeptAnswers,
  ) {}

  /** The earlier answer to the same keyed request; undefined when there is none, or its visitor has been erased since. */
  async answered({ keyed, organizationId, commandId }: CommandContext): Promise<Rendered | undefined> {
    const kept = keyed === true ? await this.kept.find<KeptRendering>(renderingId(commandId)) : undefined;
    if (kept === undefined) return undefined;
    if ('rendered' in kept) return inOrder(kept.rendered);
    const key = await this.keys.find(organizationId, kept.keyId);
    return key && (key.unseal(renderingContext(commandId), kept.sealed) as Rendered);
  }

  /** Keeps the answer to a keyed request. */
  async keep(context: CommandContext, conversationId: string, rendered: Rendered): Promise<void> {
    const { keyed, organizationId, commandId } = context;
    if (keyed !== true) return;
    const conversation = await this.transactor.load(conversationAggregate, organizationId, conversationId, Infinity);
    const keyId = conversation?.state.keyId ?? '';
    const key = await this.keys.find(organizationId, keyId);
    const kept: KeptRendering = key === undefined ? { rendered } : { keyId, sealed: key.seal(renderingContext(commandId), rendered) };
    await this.kept.first(renderingId(commandId), context, kept);
  }

  /** The content of a response that will be sent. @throws ThreadlogError unknown_canned_response, resource_archived */
  async content(organizationId: string, id: string): Promise<string> {
    const found = await this.transactor.load(cannedResponseAggregate, organizationId, id);
    if (found?.state.exists !== true) throw new ThreadlogError('unknown_canned_response', `no canned response has the id ${id}`);
    if (found.state.archived) throw new ThreadlogError('resource_archived', `the canned response ${id} is archived`);
    return found.state.content;
  }

  /**
   * @param agentName of the caller
   * @returns undefined when there is no such conversation
   */
  async render(organizationId: string, content: string, conversationId: string, agentName: string): Promise<Rendered | undefined> {
    // A conversation's visitor never changes, so a cached state of any age will do.
    const conversation = await this.transactor.load(conversationAggregate, organizationId, conversationId, Infinity);
    if (conversation === undefined) return undefined;
    const { visitorId, keyId } = conversation.state;
    const [visitor, key] = await Promise.all([
      this.transactor.load(visitorAggregate, organizationId, visitorId),
      this.keys.find(organizationId, keyId),
    ]);
    // An erased visitor has no values, not even the word that stands for erased ones.
    const unsealed = visitor === undefined || key === undefined ? undefined : unsealVisitor(visitor.state, key);
    const companyId = visitor?.state.companyId ?? null;
    const company = companyId === null ? undefined : await this.transactor.load(companyAggregate, organizationId, companyId);
    return renderTemplate(content, {
      visitor: { name: text(unsealed?.name), email: text(unsealed?.email), attributes: unsealed?.attributes ?? {} },
      agent: { name: agentName },
      company: { name: company?.state.name ?? null },
    });
  }
}

/** Restores the order of the fields in the first answer: jsonb returns them in another order. */
const inOrder = ({ text: said, missing }: Rendered): Rendered => ({ text: said, missing });

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);
