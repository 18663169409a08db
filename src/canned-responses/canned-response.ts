import { z } from 'zod';
import type { Aggregate } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';
import { ThreadlogError } from '../errors.js';
import { typedText } from '../texts/unseen-characters.js';
import { parseTemplate } from './template.js';

/** A text that agents send again and again. It holds no visitor's data, so nothing in it is sealed. */
export interface CannedResponseFields {
  readonly title: string;
  /** What agents type to find it, as the caller spelled it; unique among responses that are not archived, ignoring case. */
  readonly shortcut: string;
  /** With placeholders (template.ts). */
  readonly content: string;
}

export type CannedResponseEvent =
  | { readonly type: 'CannedResponseCreated'; readonly data: CannedResponseFields }
  /** Only the fields to change. */
  | { readonly type: 'CannedResponseChanged'; readonly data: Partial<CannedResponseFields> }
  | { readonly type: 'CannedResponseArchived'; readonly data: Record<string, never> }
  | { readonly type: 'CannedResponseUnarchived'; readonly data: Record<string, never> }
  /**
   * Another request met a claim that this response was about to use and did not use, and takes the shortcut. The event's only effect is to
   * move the stream on, so that the request that was about to use the claim must decide again. It may be the first event of a response that
   * was never created.
   */
  | { readonly type: 'ShortcutClaimVoided'; readonly data: { readonly shortcut: string } };

export interface CannedResponse extends CannedResponseFields {
  readonly exists: boolean;
  readonly archived: boolean;
  readonly createdAt: string;
  readonly updatedAt: string;
}

const fields = { title: z.string(), shortcut: z.string(), content: z.string() };

export const cannedResponseAggregate: Aggregate<CannedResponse, CannedResponseEvent> = {
  kind: 'cannedresponse',
  codec: schemaCodec<CannedResponseEvent>({
    CannedResponseCreated: [z.object(fields)],
    CannedResponseChanged: [z.object(fields).partial()],
    CannedResponseArchived: [z.object({})],
    CannedResponseUnarchived: [z.object({})],
    ShortcutClaimVoided: [z.object({ shortcut: z.string() })],
  }),
  initial: { exists: false, archived: false, title: '', shortcut: '', content: '', createdAt: '', updatedAt: '' },
  evolve: (before, event) => after(before, event, event.metadata.occurredAt),
};

function after(before: CannedResponse, event: CannedResponseEvent, at: string): CannedResponse {
  switch (event.type) {
    case 'CannedResponseCreated':
      return { ...before, ...event.data, exists: true, createdAt: at, updatedAt: at };
    case 'CannedResponseChanged':
      return { ...before, ...event.data, updatedAt: at };
    case 'CannedResponseArchived':
      return { ...before, archived: true, updatedAt: at };
    case 'CannedResponseUnarchived':
      return { ...before, archived: false, updatedAt: at };
    case 'ShortcutClaimVoided':
      return before.exists ? before : { ...before, createdAt: at, updatedAt: at };
  }
}

/**
 * The form in which shortcuts are compared and claimed, which ignores case. New shortcuts are stored as typed texts; this form must not
 * change, since it names the claims of stored shortcuts.
 */
export const normalizeShortcut = (shortcut: string) => shortcut.normalize('NFC').toLowerCase();

/** The form in which lists look up shortcuts: it also finds a shortcut that an older build stored with invisible characters. */
export const searchedShortcut = (shortcut: string) => normalizeShortcut(typedText(shortcut));

/** The shortcut that the response claims, in the form in which it is compared; null when it has none. */
export const heldShortcut = (r: CannedResponse): string | null => (r.exists && !r.archived ? normalizeShortcut(r.shortcut) : null);

/** Like heldShortcut(), after these events. */
export function heldAfter(r: CannedResponse, events: readonly CannedResponseEvent[]): string | null {
  return heldShortcut(events.reduce((state, event) => after(state, event, state.updatedAt), r));
}

export type CannedResponseDecision = (r: CannedResponse) => readonly CannedResponseEvent[];

/** @throws ThreadlogError unknown_variable */
export function createCannedResponse({ title, shortcut, content }: CannedResponseFields): CannedResponseDecision {
  return (r) => {
    if (r.exists) return [];
    parseTemplate(content);
    return [{ type: 'CannedResponseCreated', data: { title, shortcut, content } }];
  };
}

/** Appends only the differences. @throws ThreadlogError not_found, resource_archived, unknown_variable */
export function changeCannedResponse(changes: Partial<CannedResponseFields>): CannedResponseDecision {
  return (r) => {
    if (!r.exists) throw new ThreadlogError('not_found');
    if (r.archived) throw new ThreadlogError('resource_archived');
    if (changes.content !== undefined) parseTemplate(changes.content);
    const differing = Object.fromEntries(
      Object.entries(changes).filter(([field, value]) => value !== undefined && value !== r[field as keyof CannedResponseFields]),
    );
    return Object.keys(differing).length === 0 ? [] : [{ type: 'CannedResponseChanged', data: differing }];
  };
}

/** Frees its shortcut for another response. @throws ThreadlogError not_found */
export function archiveCannedResponse(): CannedResponseDecision {
  return (r) => {
    if (!r.exists) throw new ThreadlogError('not_found');
    return r.archived ? [] : [{ type: 'CannedResponseArchived', data: {} }];
  };
}

/** @throws ThreadlogError not_found */
export function unarchiveCannedResponse(): CannedResponseDecision {
  return (r) => {
    if (!r.exists) throw new ThreadlogError('not_found');
    return r.archived ? [{ type: 'CannedResponseUnarchived', data: {} }] : [];
  };
}

/** @param shortcut in the form in which it is compared */
export function voidShortcutClaim(shortcut: string): CannedResponseDecision {
  return (r) => (heldShortcut(r) === shortcut ? [] : [{ type: 'ShortcutClaimVoided', data: { shortcut } }]);
}
