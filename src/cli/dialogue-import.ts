import { metadataOf } from '../event-store/aggregate.js';
import { type EventStore, InvalidAppend, OutcomeUnknown, type Position, streamName } from '../event-store/event-store.js';
import { lastEvent } from '../event-store/last-event.js';
import { type CommandContext, isSameRequest, type RequestIdentity } from '../commands/command-context.js';
import type { Transacted, Transactor } from '../commands/transactor.js';
import { canonicalJson } from '../texts/canonical-json.js';
import { emailKey } from '../texts/email-address.js';
import { ThreadlogError } from '../errors.js';
import { isStoreAway } from '../store-away.js';
import { derivedId, type Ids } from '../ids.js';
import type { DataKey } from '../security/sealing.js';
import { typedText } from '../texts/unseen-characters.js';
import { keyedHash, visitorKeyId, type VisitorKeys } from '../security/visitor-keys.js';
import type { AssigneeReader } from '../team/assignee.reader.js';
import { createVisitor, visitorAggregate } from '../visitors/visitor.js';
import type { KeyLeft, VisitorWriter } from '../visitors/visitor.writer.js';
import { sealVisitor } from '../visitors/visitor.sealing.js';
import type { ConversationWriter } from '../conversations/conversation.commands.js';
import type { Dialogue } from './dialogue.js';
import * as conversation from '../conversations/conversation.js';
import type { Author, Conversation, ConversationEvent, Decision } from '../conversations/conversation.js';
import { sealAttributes, sealMessage, sealSubject } from '../conversations/conversation.sealing.js';

/**
 * The outcome for a dialogue. imported: this call added all of it, or the rest that an earlier call had not added. present: all of it was
 * there. refused: this call added nothing, or only a part because another writer had closed the conversation in the meantime.
 */
export type Imported =
  | {
      readonly outcome: 'imported' | 'present';
      readonly conversationId: string;
      readonly messages: number;
      readonly position: Position;
      /** Keys in the dialogue that belong to other visitors and stayed with them. */
      readonly left: readonly KeyLeft[];
    }
  | { readonly outcome: 'refused'; readonly reason: string };

const PASSING = new Set<string>(['concurrent_changes', 'store_unavailable', 'outcome_unknown']);

/** An error of the environment, not of the dialogue: a retry may succeed. */
export function isPassing(error: unknown): boolean {
  if (error instanceof ThreadlogError) return PASSING.has(error.code);
  return error instanceof OutcomeUnknown || isStoreAway(error);
}

/** Events and stored bytes of one append: below the port's limits, with room for errors of the estimate. */
const CHUNK_EVENTS = 400;
const CHUNK_BYTES = 700_000;
/** Metadata, ids and an author's name, added to the text. */
const EVENT_BYTES = 2_000;

/** The team's author when a file names none: a person, like a key without an agent. */
const UNNAMED_AUTHOR: Author = { type: 'apiKey', id: 'import', name: 'Import' };

export interface ImportParts {
  readonly store: EventStore;
  readonly transactor: Transactor;
  readonly keys: VisitorKeys;
  readonly visitors: VisitorWriter;
  readonly agents: AssigneeReader;
  readonly conversations: ConversationWriter;
  readonly ids: Ids;
  /** Retries errors that isPassing() calls temporary, for as long as the caller has patience. */
  readonly patiently: <T>(work: () => Promise<T>) => Promise<T>;
}

/** A dialogue's place in the queues of everything that it names. */
interface Turn {
  /** Settles when every earlier dialogue has left the queue. */
  readonly come: Promise<unknown>;
  leave(): void;
}

/** The part of a dialogue that one append writes. */
interface Chunk {
  readonly commandId: string;
  readonly opens: boolean;
  readonly turns: readonly { readonly at: number | undefined; readonly turn: Dialogue['turns'][number] }[];
  readonly closes: boolean;
}

interface Planned {
  readonly dialogue: Dialogue;
  readonly conversationId: string;
  readonly identity: RequestIdentity;
  readonly chunks: readonly Chunk[];
  /** Start and end (ms); undefined means the time of the import. */
  readonly from: number | undefined;
  readonly to: number | undefined;
}

/**
 * Imports the conversations of a file, through the same decisions as the API. Every id follows from the organization and the dialogue's
 * id, and every append is a command of its own that is searched for in the whole stream. So a second import adds nothing, and an import
 * after a crash adds what is missing. Order of the writes: the visitor's key, the visitor, the conversation's parts.
 */
export class ConversationImporter {
  /**
   * The last dialogue in progress for each id or visitor. The next dialogue waits until the log holds all of it: the later line of a file
   * has the last word on a visitor, even when a crash lies between the two lines.
   */
  private readonly queues = new Map<string, Promise<void>>();

  constructor(
    private readonly parts: ImportParts,
    private readonly organizationId: string,
  ) {}

  /**
   * Imports dialogues in parallel and fetches what they share once. The answers are in the order of the dialogues.
   * @throws the error with which `patiently` gives up; importing the same dialogues again continues
   */
  async importAll(dialogues: readonly Dialogue[]): Promise<readonly Imported[]> {
    const { keys, patiently } = this.parts;
    const turns = dialogues.map((dialogue) => this.queueUp(dialogue));
    try {
      const hashKey = await keys.hashKey(this.organizationId);
      const planned = dialogues.map((dialogue) => this.plan(dialogue, hashKey));
      const seen = await patiently(() => this.lookAtAll(planned));
      const own = planned.filter(({ dialogue }, index) => seen[index]?.kind === 'absent' && !isNamed(dialogue));
      const visitorIds = own.map(({ conversationId }) => this.ownVisitorId(conversationId));
      if (visitorIds.length > 0) await patiently(() => keys.makeMany(this.organizationId, visitorIds));
      return await Promise.all(
        planned.map(async (plan, index) => {
          const turn = turns[index];
          await turn?.come;
          try {
            return await patiently(() => this.importOne(plan, seen[index] ?? ABSENT));
          } finally {
            turn?.leave();
          }
        }),
      );
    } finally {
      for (const turn of turns) turn.leave();
    }
  }

  private async importOne(plan: Planned, seen: Look): Promise<Imported> {
    if (seen.kind === 'answered') return seen.answer;
    try {
      return await this.write(plan, seen);
    } catch (error) {
      if (error instanceof InvalidAppend) return { outcome: 'refused', reason: `too large for one event: ${error.message}` };
      if (!(error instanceof ThreadlogError) || isPassing(error)) throw error;
      if (error.code === 'internal_error') throw error.cause instanceof Error ? error.cause : error;
      if (error.code === 'idempotency_key_reused') return { outcome: 'refused', reason: OTHER_CONTENT };
      // It may have been imported before its visitor was erased.
      if (error.code === 'visitor_erased' && seen === ABSENT) return this.importOne(plan, await this.look(plan));
      return { outcome: 'refused', reason: error.message };
    }
  }

  /** The ids and parts of a dialogue. They depend on the dialogue alone, so that another run splits it the same way. */
  private plan(dialogue: Dialogue, hashKey: Buffer): Planned {
    const conversationId = derivedId('conversation', 'import', this.organizationId, dialogue.id);
    const firstAt = dialogue.createdAt ?? dialogue.turns.find(({ at }) => at !== undefined)?.at;
    const from = firstAt === undefined ? undefined : Date.parse(firstAt);
    let at = from;
    const chunks: Chunk[] = [];
    let turns: { at: number | undefined; turn: Dialogue['turns'][number] }[] = [];
    let bytes = openingBytes(dialogue);
    const cut = (closes: boolean) => {
      const commandId = derivedId('import', this.organizationId, dialogue.id, String(chunks.length));
      chunks.push({ commandId, opens: chunks.length === 0, turns, closes });
      turns = [];
      bytes = 0;
    };
    for (const turn of dialogue.turns) {
      const size = EVENT_BYTES + sealedBytes(turn.text);
      if (turns.length >= CHUNK_EVENTS || (bytes > 0 && bytes + size > CHUNK_BYTES)) cut(false);
      if (turn.at !== undefined) at = Date.parse(turn.at);
      turns.push({ at, turn });
      bytes += size;
    }
    cut(true);
    // Half of the hash is enough to detect changed content, and every event stores it.
    const hashOf = (text: string) => keyedHash(hashKey, 'import', text).slice(0, 32);
    const identity = { requestHash: hashOf(canonicalJson(dialogue)), earlierRequestHash: hashOf(JSON.stringify(dialogue)) };
    return { dialogue, conversationId, identity, chunks, from, to: at };
  }

  /**
   * A file is imported from its beginning, so neighbours are usually either all there or all absent. Where the first and the last of some
   * are absent, assumes that the rest is absent too; the appends verify it. Visitors that other dialogues may share are always looked up.
   */
  private async lookAtAll(planned: readonly Planned[]): Promise<readonly Look[]> {
    const ends = new Map<Planned, Look>();
    for (const plan of new Set([planned.at(0), planned.at(-1)])) if (plan !== undefined) ends.set(plan, await this.look(plan));
    const guess = [...ends.values()].every(({ kind }) => kind === 'absent');
    return Promise.all(planned.map(async (plan) => ends.get(plan) ?? (guess && !isNamed(plan.dialogue) ? ABSENT : await this.look(plan))));
  }

  /** How much of a dialogue is in the log. A second run needs no more when the log ends with the dialogue's last append. */
  private async look(plan: Planned): Promise<Look> {
    const stream = streamName(conversation.conversationAggregate.kind, this.organizationId, plan.conversationId);
    const event = await lastEvent(this.parts.store, stream);
    if (event === undefined) return { kind: 'absent' };
    const { commandId, requestHash } = metadataOf(event);
    if (commandId !== plan.chunks.at(-1)?.commandId) return { kind: 'begun' };
    const answer: Imported = isSameRequest(requestHash, plan.identity)
      ? present(plan, event.position)
      : { outcome: 'refused', reason: OTHER_CONTENT };
    return { kind: 'answered', answer };
  }

  private async write(plan: Planned, { kind }: Look): Promise<Imported> {
    const { dialogue, conversationId } = plan;
    const authors = await this.authors(dialogue);
    // An existing conversation has its visitor, who may have been changed since: the file no longer changes the visitor.
    const begun =
      kind === 'begun'
        ? await this.parts.transactor.load(conversation.conversationAggregate, this.organizationId, conversationId)
        : undefined;
    const with_ = begun === undefined ? await this.visitor(plan) : await this.visitorOf(begun.state);
    let added = false;
    let position: Position | undefined;
    for (const chunk of plan.chunks) {
      const done: Transacted<Conversation, ConversationEvent> = await this.parts.transactor.transact(
        conversation.conversationAggregate,
        conversationId,
        {
          ...this.context(chunk.commandId, plan.identity),
          keyId: with_.keyId,
          ...(begun === undefined && chunk.opens ? { fresh: true as const } : {}),
          // The parts after a part that was added now are missing too.
          ...(added ? {} : { thorough: true as const }),
        },
        (state) => this.decide(plan, chunk, with_, authors)(state),
      );
      added = done.outcome === 'appended';
      position = done.position;
    }
    if (position === undefined) throw new Error('a dialogue has at least one part');
    return added
      ? { outcome: 'imported', conversationId, messages: dialogue.turns.length, position, left: with_.left }
      : present(plan, position);
  }

  /** Seals only here, once the part is known to be missing from the log. */
  private decide(plan: Planned, chunk: Chunk, with_: With, authors: ReadonlyMap<string, Author>): Decision {
    const { dialogue } = plan;
    const { key, inboxId } = with_;
    if (key === undefined) throw new ThreadlogError('visitor_erased');
    const steps: Decision[] = [];
    if (chunk.opens) {
      const { subject, priority, customAttributes } = dialogue;
      const opening: conversation.Opening = {
        visitorId: with_.visitorId,
        inboxId,
        channel: 'import',
        ...(with_.companyId === null ? {} : { companyId: with_.companyId }),
        ...(priority === undefined ? {} : { priority }),
        ...(subject === undefined ? {} : { subject: sealSubject(key, subject) }),
        ...(customAttributes === undefined ? {} : { customAttributes: sealAttributes(key, customAttributes) }),
      };
      steps.push(happened(plan.from, conversation.open(opening)));
      const named = [...(dialogue.topics ?? []), ...(dialogue.tags ?? [])];
      if (named.length > 0) steps.push(happened(plan.from, conversation.addTags(named)));
    }
    for (const { at, turn } of chunk.turns) {
      const message = sealMessage(key, this.parts.ids.next(), { type: 'text', content: turn.text });
      const author = turn.agentId === undefined ? UNNAMED_AUTHOR : (authors.get(turn.agentId) ?? UNNAMED_AUTHOR);
      steps.push(
        happened(
          at,
          turn.from === 'visitor'
            ? conversation.receive(message)
            : turn.from === 'agent'
              ? conversation.reply(message, author)
              : conversation.addNote(message, author),
        ),
      );
    }
    if (chunk.closes && dialogue.status !== undefined) steps.push(happened(plan.to, conversation.setStatus(dialogue.status, 'import')));
    return conversation.inTurn(...steps);
  }

  /** Finds or creates the visitor; a visitor without a key belongs to this conversation alone. */
  private async visitor(plan: Planned): Promise<With> {
    const { dialogue, conversationId, identity } = plan;
    const inboxId = await this.parts.conversations.defaultInbox(this.organizationId);
    const { id, name, ...others } = dialogue.visitor ?? {};
    const fields = name === undefined ? others : { ...others, name: typedText(name) };
    const context = this.context(derivedId('import-visitor', this.organizationId, dialogue.id), identity);
    if (isNamed(dialogue)) {
      const given = id === undefined ? fields : { id, ...fields };
      const resolved = await this.parts.visitors.resolve({ ...context, thorough: true }, given);
      const { keyId, key } = await this.parts.keys.make(this.organizationId, resolved.visitorId);
      return { visitorId: resolved.visitorId, companyId: resolved.state.companyId, keyId, key, inboxId, left: resolved.left };
    }
    const visitorId = this.ownVisitorId(conversationId);
    const keyId = visitorKeyId(this.organizationId, visitorId);
    const key = await this.parts.keys.find(this.organizationId, keyId);
    if (key === undefined) throw new ThreadlogError('visitor_erased');
    const create = createVisitor(sealVisitor(key, fields));
    const own: CommandContext = { ...context, keyId, fresh: true, thorough: true };
    await this.parts.transactor.transact(visitorAggregate, visitorId, own, (state) => create(state));
    return { visitorId, companyId: null, keyId, key, inboxId, left: [] };
  }

  private async visitorOf(state: Conversation): Promise<With> {
    const { visitorId, keyId, companyId, inboxId } = state;
    return { visitorId, keyId, companyId, inboxId, left: [], key: await this.parts.keys.find(this.organizationId, keyId) };
  }

  /** Called before any wait, so that the queue has the order of the file. */
  private queueUp({ id, visitor: named }: Dialogue): Turn {
    const names = [
      `dialogue ${id}`,
      ...(named?.id === undefined ? [] : [`id ${named.id}`]),
      ...(named?.userId === undefined ? [] : [`userId ${named.userId}`]),
      ...(named?.email === undefined ? [] : [`email ${emailKey(named.email)}`]),
    ];
    const before = names.flatMap((name) => this.queues.get(name) ?? []);
    let left: () => void = () => undefined;
    const leaving = new Promise<void>((resolve) => (left = resolve));
    for (const name of names) this.queues.set(name, leaving);
    return {
      come: Promise.all(before),
      leave: () => {
        left();
        for (const name of names) if (this.queues.get(name) === leaving) this.queues.delete(name);
      },
    };
  }

  /** Includes archived agents, since they did write the message. @throws ThreadlogError unknown_agent */
  private async authors({ turns }: Dialogue): Promise<ReadonlyMap<string, Author>> {
    const authors = new Map<string, Author>();
    for (const { agentId } of turns) {
      if (agentId === undefined || authors.has(agentId)) continue;
      const agent = await this.parts.agents.assignee(this.organizationId, agentId);
      if (agent?.type !== 'agent') throw new ThreadlogError('unknown_agent', `no agent has the id ${agentId}`);
      authors.set(agentId, { type: 'agent', id: agentId, name: agent.name });
    }
    return authors;
  }

  private ownVisitorId(conversationId: string): string {
    return derivedId('visitor', 'import', this.organizationId, conversationId);
  }

  private context(commandId: string, identity: RequestIdentity): CommandContext {
    return {
      organizationId: this.organizationId,
      actor: { type: 'system', id: 'import' },
      commandId,
      ...identity,
      correlationId: commandId,
      imported: true,
    };
  }
}

/** The visitor of a conversation, and what the opening takes from other streams. */
interface With {
  readonly visitorId: string;
  readonly companyId: string | null;
  readonly inboxId: string;
  readonly keyId: string;
  /** Undefined once the visitor is erased. */
  readonly key: DataKey | undefined;
  readonly left: readonly KeyLeft[];
}

/** What the log holds of a dialogue: nothing, a part or more than all of it, or all of it with nothing after it. */
type Look = { readonly kind: 'absent' } | { readonly kind: 'begun' } | { readonly kind: 'answered'; readonly answer: Imported };

/** Not looked up yet. */
const ABSENT: Look = { kind: 'absent' };

const OTHER_CONTENT = 'another conversation was imported under this id before';

/** Whether other lines or requests may mean the same visitor. True with a company too, since the visitor writer has to look it up. */
function isNamed({ visitor: given }: Dialogue): boolean {
  return given?.id !== undefined || given?.userId !== undefined || given?.email !== undefined || given?.companyId !== undefined;
}

function present({ conversationId, dialogue }: Planned, position: Position): Imported {
  return { outcome: 'present', conversationId, messages: dialogue.turns.length, position, left: [] };
}

/** A decision whose events carry their own times: transact() takes `at` from them (see Decided). */
function happened(at: number | undefined, decision: Decision): Decision {
  return at === undefined ? decision : (state) => decision(state).map((event) => ({ at, ...event }));
}

/** Upper estimate of the base64 length of the JSON text. */
const sealedBytes = (text: string) => Math.ceil((Buffer.byteLength(JSON.stringify(text)) + 32) / 3) * 4;

function openingBytes({ subject = '', customAttributes = {}, topics = [], tags: given = [] }: Dialogue): number {
  let bytes = 3 * EVENT_BYTES + sealedBytes(subject);
  for (const tag of [...topics, ...given]) bytes += Buffer.byteLength(JSON.stringify(tag));
  for (const [name, value] of Object.entries(customAttributes)) bytes += sealedBytes(name) + sealedBytes(String(value));
  return bytes;
}
