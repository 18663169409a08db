import { z } from 'zod';
import type { Aggregate } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';
import { ThreadlogError } from '../errors.js';

export const ASSIGNMENT_MODES = ['manual', 'round_robin', 'least_busy'] as const;
export const WEEKDAYS = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'] as const;
export type Weekday = (typeof WEEKDAYS)[number];

/** How new conversations of the inbox are assigned. */
export interface Assignment {
  readonly mode: (typeof ASSIGNMENT_MODES)[number];
  /** The members that an automatic assignment chooses from. */
  readonly agentIds: readonly string[];
  /** The most open conversations for one member; null for no limit. */
  readonly cap: number | null;
}

/** From and to as HH:MM in the inbox's zone, to excluded; 24:00 is the end of the day. */
export type Interval = readonly [string, string];

export interface WorkingHours {
  /** IANA name. */
  readonly timezone: string;
  /** The intervals of each weekday, in order and without overlap; an absent day is a day off. */
  readonly schedule: Readonly<Partial<Record<Weekday, readonly Interval[]>>>;
}

export interface AutoResponder {
  readonly enabled: boolean;
  readonly message: string;
  readonly delaySeconds: number;
  /** Answers only when the visitor wrote outside the working hours. */
  readonly onlyOutsideWorkingHours: boolean;
}

interface OptionalFields {
  readonly description?: string | null;
  readonly email?: string | null;
  readonly color?: string | null;
  readonly icon?: string | null;
  /** Null means always open. */
  readonly workingHours?: WorkingHours | null;
  readonly autoResponder?: AutoResponder | null;
}

export type InboxEvent =
  | { readonly type: 'InboxCreated'; readonly data: OptionalFields & { readonly name: string; readonly assignment: Assignment } }
  /** Only the fields to change; `null` clears a field. A nested object replaces its whole field. */
  | { readonly type: 'InboxChanged'; readonly data: InboxChanges }
  | { readonly type: 'InboxArchived'; readonly data: Record<string, never> }
  | { readonly type: 'InboxUnarchived'; readonly data: Record<string, never> };

/** The fields that a caller asks to set. */
export type InboxChanges = OptionalFields & { readonly name?: string; readonly assignment?: Assignment };

export interface Inbox {
  readonly exists: boolean;
  readonly archived: boolean;
  readonly name: string;
  readonly description: string | null;
  readonly email: string | null;
  readonly color: string | null;
  readonly icon: string | null;
  readonly assignment: Assignment;
  readonly workingHours: WorkingHours | null;
  readonly autoResponder: AutoResponder | null;
  readonly createdAt: string;
  readonly updatedAt: string;
}

const MANUAL: Assignment = { mode: 'manual', agentIds: [], cap: null };

const intervals = z.array(z.tuple([z.string(), z.string()])).optional();
const assignment = z.object({ mode: z.enum(ASSIGNMENT_MODES), agentIds: z.array(z.string()), cap: z.number().int().nullable() });
const text = z.string().nullable().optional();
const optionalFields = {
  description: text,
  email: text,
  color: text,
  icon: text,
  workingHours: z
    .object({
      timezone: z.string(),
      schedule: z.object({
        monday: intervals,
        tuesday: intervals,
        wednesday: intervals,
        thursday: intervals,
        friday: intervals,
        saturday: intervals,
        sunday: intervals,
      }),
    })
    .nullable()
    .optional(),
  autoResponder: z
    .object({ enabled: z.boolean(), message: z.string(), delaySeconds: z.number().int(), onlyOutsideWorkingHours: z.boolean() })
    .nullable()
    .optional(),
};

export const inboxAggregate: Aggregate<Inbox, InboxEvent> = {
  kind: 'inbox',
  codec: schemaCodec<InboxEvent>({
    InboxCreated: [z.object({ name: z.string(), ...optionalFields, assignment })],
    InboxChanged: [z.object({ name: z.string().optional(), ...optionalFields, assignment: assignment.optional() })],
    InboxArchived: [z.object({})],
    InboxUnarchived: [z.object({})],
  }),
  initial: {
    exists: false,
    archived: false,
    name: '',
    description: null,
    email: null,
    color: null,
    icon: null,
    assignment: MANUAL,
    workingHours: null,
    autoResponder: null,
    createdAt: '',
    updatedAt: '',
  },
  evolve: (before, event) => {
    const at = event.metadata.occurredAt;
    switch (event.type) {
      case 'InboxCreated':
        return { ...before, ...event.data, exists: true, createdAt: at, updatedAt: at };
      case 'InboxChanged':
        return { ...before, ...event.data, updatedAt: at };
      case 'InboxArchived':
        return { ...before, archived: true, updatedAt: at };
      case 'InboxUnarchived':
        return { ...before, archived: false, updatedAt: at };
    }
  },
};

export type InboxDecision = (i: Inbox) => readonly InboxEvent[];

/** Returns no event when the id is taken: callers that need a new inbox must check. */
export function createInbox(given: InboxChanges & { readonly name: string }): InboxDecision {
  return (i) =>
    i.exists ? [] : [{ type: 'InboxCreated', data: { name: given.name, assignment: MANUAL, ...named(given, (value) => value !== null) } }];
}

/** Appends only the differences. @throws ThreadlogError not_found, resource_archived */
export function changeInboxFields(changes: InboxChanges): InboxDecision {
  return (i) => {
    if (!i.exists) throw new ThreadlogError('not_found');
    if (i.archived) throw new ThreadlogError('resource_archived');
    const differing = named(changes, (value, field) => JSON.stringify(value) !== JSON.stringify(i[field]));
    return Object.keys(differing).length === 0 ? [] : [{ type: 'InboxChanged', data: differing }];
  };
}

export function archiveInbox(): InboxDecision {
  return (i) => {
    if (!i.exists) throw new ThreadlogError('not_found');
    return i.archived ? [] : [{ type: 'InboxArchived', data: {} }];
  };
}

/** @throws ThreadlogError not_found */
export function unarchiveInbox(): InboxDecision {
  return (i) => {
    if (!i.exists) throw new ThreadlogError('not_found');
    return i.archived ? [{ type: 'InboxUnarchived', data: {} }] : [];
  };
}

/** The given valid fields, with nested objects in their normal form, so that equal values have equal JSON. */
function named(given: InboxChanges, passes: (value: unknown, field: keyof InboxChanges) => boolean): InboxChanges {
  const normal: InboxChanges = {
    ...given,
    ...(given.assignment === undefined ? {} : { assignment: normalAssignment(given.assignment) }),
    ...(given.workingHours === undefined || given.workingHours === null ? {} : { workingHours: normalWorkingHours(given.workingHours) }),
    ...(given.autoResponder === undefined || given.autoResponder === null
      ? {}
      : { autoResponder: normalAutoResponder(given.autoResponder) }),
  };
  return Object.fromEntries(
    Object.entries(normal).filter(([field, value]) => value !== undefined && passes(value, field as keyof InboxChanges)),
  );
}

function normalAssignment({ mode, agentIds, cap }: Assignment): Assignment {
  return { mode, agentIds, cap };
}

function normalAutoResponder({ enabled, message, delaySeconds, onlyOutsideWorkingHours }: AutoResponder): AutoResponder {
  return { enabled, message, delaySeconds, onlyOutsideWorkingHours };
}

function normalWorkingHours({ timezone, schedule }: WorkingHours): WorkingHours {
  const days = WEEKDAYS.flatMap((day) => {
    const given = schedule[day] ?? [];
    return given.length === 0 ? [] : [[day, [...given].sort(([a], [b]) => (a < b ? -1 : 1))] as const];
  });
  return { timezone, schedule: Object.fromEntries(days) };
}

const TIME = /^(?:([01]\d|2[0-3]):[0-5]\d|24:00)$/;
const MAX_INTERVALS = 12;

/** The faults of a schedule that a caller sent, each with its path; undefined for a valid schedule. */
export function scheduleFaults(
  schedule: unknown,
): string | readonly { readonly path: readonly PropertyKey[]; readonly message: string }[] | undefined {
  if (typeof schedule !== 'object' || schedule === null || Array.isArray(schedule)) return 'must be an object of weekdays';
  const faults = Object.entries(schedule).flatMap(([day, given]) => {
    if (!(WEEKDAYS as readonly string[]).includes(day)) return [{ path: [day], message: `is not one of ${WEEKDAYS.join(', ')}` }];
    return dayFaults(given).map(({ path, message }) => ({ path: [day, ...path], message }));
  });
  return faults.length === 0 ? undefined : faults;
}

function dayFaults(given: unknown): { readonly path: readonly PropertyKey[]; readonly message: string }[] {
  if (!Array.isArray(given)) return [{ path: [], message: 'must be a list of intervals, such as [["09:00","12:30"]]' }];
  if (given.length > MAX_INTERVALS) return [{ path: [], message: `must have at most ${MAX_INTERVALS} intervals` }];
  const faults = given.flatMap((one: unknown, index) =>
    isInterval(one) ? [] : [{ path: [index], message: 'must be [from, to] in HH:MM, such as ["09:00","12:30"], to later than from' }],
  );
  if (faults.length > 0) return faults;
  const sorted = (given as Interval[]).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const overlaps = sorted.some(([start], index) => start < (sorted[index - 1]?.[1] ?? ''));
  return overlaps ? [{ path: [], message: 'must have intervals that do not overlap' }] : [];
}

function isInterval(value: unknown): value is Interval {
  if (!Array.isArray(value) || value.length !== 2) return false;
  const [start, end] = value as unknown[];
  return typeof start === 'string' && typeof end === 'string' && TIME.test(start) && TIME.test(end) && start < end;
}
