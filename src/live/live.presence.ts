import { Inject, Injectable, type OnModuleDestroy } from '@nestjs/common';
import { z } from 'zod';
import { CLOCK, type Clock } from '../clock.js';
import { Transactor } from '../commands/transactor.js';
import { conversationAggregate } from '../conversations/conversation.js';
import { ThreadlogError } from '../errors.js';
import { type Log, LOGGER } from '../log.js';
import type { LiveEvent } from './live-event.answer.js';
import { type Placed, PRESENCE_TYPES, type PresenceType } from './live-filter.js';
import { LiveFrame } from './live-frame.js';
import { broadcast } from './live-member.js';
import type { LiveMessage } from './live-message.js';
import type { LiveSession } from './live.session.js';
import { LiveWire } from './live.wire.js';
import { SEALABLE_BYTES } from '../security/presence-seal.js';

/** How long somebody is there after the last word of it (ms). */
const PRESENT_MS = 20_000;
/** How often it is looked whether somebody has left (ms). */
const TICK_MS = 500;
/** How old the known state of a conversation may be (ms). */
const STATE_MAX_AGE_MS = 1_000;
/** Words of presence of an organization that may wait to be told to the other processes; with more, new ones are left out. */
const MOST_WAITING_WORDS = 500;
/** Notifications that are sent at once, and the pause after them (ms). Organizations take turns at filling them. */
const NOTIFICATIONS_AT_ONCE = 4;
const NOTIFICATION_PAUSE_MS = 50;
/** A word that was told less than this ago is not told again (ms). */
const SAME_MS = 1_000;
/** How often at most the log tells of notifications that were not understood (ms), since whoever may use the database can send them. */
const WARN_MS = 60_000;
const LONGEST_NAME = 60;
/**
 * The most presences that a process knows of an organization, and of all. Beyond `all` only organizations that have less than their equal part
 * of it add to theirs, so that a few crowded ones leave the others their part; together they have less than twice as many.
 */
const MOST_PRESENT = { ofOrganization: 5_000, all: 50_000 } as const;
/** The most frames of presence for a socket that has just joined. */
const MOST_GREETINGS = 500;

/** Who is there, as processes tell each other. */
const wordSchema = z.object({
  organizationId: z.string(),
  conversationId: z.string(),
  type: z.enum(PRESENCE_TYPES),
  id: z.string(),
  name: z.string(),
  /** False for a key that is bound to no agent, whose name visitors are not told. */
  isAgent: z.boolean(),
  visitorId: z.string(),
  inboxId: z.string(),
  assigneeId: z.string().nullable(),
  /** The conversation's revision when it had this inbox and assignee. */
  revision: z.number(),
});
type Word = z.infer<typeof wordSchema>;
const wordsSchema = z.array(wordSchema);

interface Person {
  readonly id: string;
  readonly name: string;
  readonly isAgent: boolean;
  /** ms since 1970 */
  until: number;
}

interface Room {
  readonly organizationId: string;
  readonly conversationId: string;
  readonly visitorId: string;
  place: Placed;
  /** The conversation's revision when it had this place. */
  revision: number;
  readonly people: { readonly [type in PresenceType]: Map<string, Person> };
}

interface Organization {
  /** By conversation. */
  readonly rooms: Map<string, Room>;
  /** People in all rooms; who looks and types counts twice. */
  present: number;
}

/**
 * Who looks at which conversation and who types. It is told from process to process by notifications of PostgreSQL and forgotten after 20
 * seconds; no log, table or append knows of it.
 */
@Injectable()
export class LivePresence implements OnModuleDestroy {
  /** Every socket of an organization in this process. */
  sessionsOf: (organizationId: string) => Iterable<LiveSession> = () => [];
  readonly #organizations = new Map<string, Organization>();
  #present = 0;
  #tick: NodeJS.Timeout | undefined;
  /** What waits to be told, by organization. The organization whose turn is next comes first. */
  readonly #outbox = new Map<string, Map<string, Word>>();
  /** When each word was last told (ms). */
  readonly #toldAt = new Map<string, number>();
  #pause: NodeJS.Timeout | undefined;
  /** Notifications that were not understood since the log last told of them. */
  #unknown = 0;
  /** When that was; real time, whatever the clock says. */
  #warnedAt: number | undefined;

  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(LiveWire) private readonly wire: LiveWire,
    @Inject(CLOCK) private readonly clock: Clock,
    @Inject(LOGGER) private readonly log: Log,
  ) {
    wire.onPresence((text) => this.#hear(text));
  }

  /**
   * Somebody of the team says what it does.
   * @throws ThreadlogError not_found for an unknown conversation; StoreUnavailable
   */
  async tell({ organizationId, caller }: LiveSession, { type, conversationId }: LiveMessage): Promise<void> {
    const { person, agentId } = caller;
    if (person === null) throw new ThreadlogError('forbidden');
    const known = await this.transactor.load(conversationAggregate, organizationId, conversationId, STATE_MAX_AGE_MS);
    if (known === undefined) throw new ThreadlogError('not_found', 'there is no such conversation');
    const { visitorId, inboxId, assignee } = known.state;
    this.#say({
      organizationId,
      conversationId,
      type: `presence.${type}`,
      id: person.id,
      name: Array.from(person.name).slice(0, LONGEST_NAME).join(''),
      isAgent: agentId !== null,
      visitorId,
      inboxId,
      assigneeId: assignee?.id ?? null,
      revision: known.revision,
    });
  }

  /** An event was told: the conversation may have gone where others see it, and where some who saw it do not. */
  follow({ told, conversationId, places }: LiveEvent): void {
    const room = this.#organizations.get(told.organizationId)?.rooms.get(conversationId);
    const place = places.at(-1);
    if (room !== undefined && place !== undefined) this.#move(room, place, told.event.revision);
  }

  /** Tells a socket that has just joined who is there. */
  greet(session: LiveSession): void {
    let left = MOST_GREETINGS;
    for (const room of this.#organizations.get(session.organizationId)?.rooms.values() ?? [])
      for (const type of PRESENCE_TYPES) {
        if (room.people[type].size === 0 || !isTold(session, room, type)) continue;
        if (left-- === 0) return;
        session.connection.send(frameOf(room, type, session.audience === 'visitors'));
      }
  }

  onModuleDestroy(): void {
    clearInterval(this.#tick);
    clearTimeout(this.#pause);
  }

  #say(word: Word): void {
    const { organizationId } = word;
    const name = JSON.stringify([organizationId, word.conversationId, word.type, word.id]);
    const now = this.clock.now();
    const told = this.#toldAt.get(name);
    if (told !== undefined && now >= told && now - told < SAME_MS) return;
    let waiting = this.#outbox.get(organizationId);
    if (waiting === undefined) this.#outbox.set(organizationId, (waiting = new Map()));
    if (waiting.size >= MOST_WAITING_WORDS && !waiting.has(name)) return;
    waiting.set(name, word);
    this.#toldAt.set(name, now);
    if (this.#pause === undefined) this.#send();
  }

  #send(): void {
    let notifications = 0;
    let words: string[] = [];
    let bytes = 2;
    const flush = () => {
      this.wire.tellPresence(`[${words.join(',')}]`);
      notifications++;
      words = [];
      bytes = 2;
    };
    for (let word = this.#nextWord(); word !== undefined; word = this.#nextWord()) {
      const text = JSON.stringify(word.word);
      const size = Buffer.byteLength(text) + 1;
      if (bytes + size > SEALABLE_BYTES) flush();
      if (notifications === NOTIFICATIONS_AT_ONCE) break;
      word.take();
      words.push(text);
      bytes += size;
    }
    if (words.length > 0) flush();
    const since = this.clock.now() - SAME_MS;
    for (const [name, at] of this.#toldAt) if (at <= since) this.#toldAt.delete(name);
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#outbox.size > 0) this.#send();
    }, NOTIFICATION_PAUSE_MS);
  }

  /** The oldest word of the organization whose turn it is. When it is taken, the turn passes to the next organization. */
  #nextWord(): { readonly word: Word; take(): void } | undefined {
    for (const [organizationId, waiting] of this.#outbox)
      for (const [name, word] of waiting)
        return {
          word,
          take: () => {
            waiting.delete(name);
            this.#outbox.delete(organizationId);
            if (waiting.size > 0) this.#outbox.set(organizationId, waiting);
          },
        };
    return undefined;
  }

  #hear(text: string | undefined): void {
    const words = text === undefined ? undefined : readWords(text);
    if (words === undefined) this.#notUnderstood();
    for (const word of words ?? []) this.#note(word);
  }

  #notUnderstood(): void {
    this.#unknown++;
    const now = performance.now();
    if (this.#warnedAt !== undefined && now - this.#warnedAt < WARN_MS) return;
    this.log.warn({ notifications: this.#unknown }, 'notifications of presence were not understood, and nobody was told of them');
    this.#warnedAt = now;
    this.#unknown = 0;
  }

  #note(word: Word): void {
    const { organizationId, type, id, name, isAgent, inboxId, assigneeId, revision } = word;
    const until = this.clock.now() + PRESENT_MS;
    const known = this.#organizations.get(organizationId)?.rooms.get(word.conversationId);
    if (known !== undefined) this.#move(known, { inboxId, assigneeId }, revision);
    const person = known?.people[type].get(id);
    if (person !== undefined) {
      person.until = until;
      return;
    }
    const organization = this.#organizations.get(organizationId) ?? { rooms: new Map<string, Room>(), present: 0 };
    if (organization.present >= this.#most()) return;
    const room = known ?? roomOf(word);
    room.people[type].set(id, { id, name, isAgent, until });
    organization.rooms.set(room.conversationId, room);
    organization.present++;
    this.#organizations.set(organizationId, organization);
    this.#present++;
    this.#tick ??= setInterval(() => this.#look(), TICK_MS).unref();
    this.#show(room, type);
  }

  /** How many presences an organization may have. */
  #most(): number {
    if (this.#present < MOST_PRESENT.all) return MOST_PRESENT.ofOrganization;
    return Math.min(MOST_PRESENT.ofOrganization, MOST_PRESENT.all / (this.#organizations.size + 1));
  }

  /** Tells those who see a conversation no longer, that nobody is there, and those who see it now, who is. */
  #move(room: Room, place: Placed, revision: number): void {
    // What another process knows of a conversation may be older than what was told here.
    if (revision <= room.revision) return;
    const before = room.place;
    room.place = place;
    room.revision = revision;
    if (before.inboxId === place.inboxId && before.assigneeId === place.assigneeId) return;
    for (const type of PRESENCE_TYPES) {
      if (room.people[type].size === 0) continue;
      const gone: LiveSession[] = [];
      const come: LiveSession[] = [];
      for (const session of this.sessionsOf(room.organizationId)) {
        const [saw, sees] = [isTold(session, { ...room, place: before }, type), isTold(session, room, type)];
        if (saw && !sees) gone.push(session);
        else if (sees && !saw) come.push(session);
      }
      sendPresence(gone, { ...room, people: nobody() }, type);
      sendPresence(come, room, type);
    }
  }

  /** Lets those go who have not been heard of. */
  #look(): void {
    const now = this.clock.now();
    for (const [organizationId, organization] of this.#organizations) {
      const { rooms } = organization;
      for (const [conversationId, room] of rooms) {
        for (const type of PRESENCE_TYPES) {
          const people = room.people[type];
          const gone = [...people.values()].filter(({ until }) => until <= now);
          for (const { id } of gone) people.delete(id);
          organization.present -= gone.length;
          this.#present -= gone.length;
          if (gone.length > 0) this.#show(room, type);
        }
        if (room.people['presence.viewing'].size + room.people['presence.typing'].size === 0) rooms.delete(conversationId);
      }
      if (rooms.size === 0) this.#organizations.delete(organizationId);
    }
    if (this.#organizations.size > 0) return;
    clearInterval(this.#tick);
    this.#tick = undefined;
  }

  #show(room: Room, type: PresenceType): void {
    sendPresence(
      [...this.sessionsOf(room.organizationId)].filter((session) => isTold(session, room, type)),
      room,
      type,
    );
  }
}

const nobody = () => ({ 'presence.viewing': new Map<string, Person>(), 'presence.typing': new Map<string, Person>() });

const roomOf = ({ organizationId, conversationId, visitorId, inboxId, assigneeId, revision }: Word): Room => ({
  organizationId,
  conversationId,
  visitorId,
  place: { inboxId, assigneeId },
  revision,
  people: nobody(),
});

/** Tells sessions who is in a room. */
function sendPresence(sessions: readonly LiveSession[], room: Room, type: PresenceType): void {
  for (const forVisitors of [true, false]) {
    const own = sessions.filter(({ audience }) => (audience === 'visitors') === forVisitors).map(({ connection }) => connection);
    if (own.length > 0) broadcast(own, frameOf(room, type, forVisitors));
  }
}

/** Undefined for words of another build. */
function readWords(text: string): Word[] | undefined {
  try {
    return wordsSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** Visitors are told that somebody types, and not who looks. */
function isTold(session: LiveSession, { conversationId, visitorId, place }: Room, type: PresenceType): boolean {
  if (session.audience === 'visitors' && type === 'presence.viewing') return false;
  return session.sees(type, conversationId, visitorId, [place]);
}

/** Visitors are told an agent's name, as in messages, and no id. */
function frameOf({ conversationId, people }: Room, type: PresenceType, forVisitors: boolean): LiveFrame {
  const agents = [...people[type].values()].map(({ id, name, isAgent }) => (forVisitors ? (isAgent ? { name } : {}) : { id, name }));
  return new LiveFrame({ type, data: { conversationId, agents } });
}
