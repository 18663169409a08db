import type { MeAnswer } from '../src/console/me.answer.js';
import { ask } from './api/request.js';

/** Whom the page speaks for. */
export interface Who {
  readonly me: MeAnswer;
  /** The agent that an unbound admin has chosen; an id, which is no secret. */
  readonly actingFor: string | null;
}

/** The author of what this person writes, as the API names it. */
export const authorOf = ({ me }: Who) => me.agent ?? { id: me.keyId, name: me.keyName };

export const mayWrite = ({ me }: Who) => me.role === 'admin' || me.role === 'agent';

const CHOICE = 'threadlog.acting-for';

/** @throws Refused with the code unauthenticated when nobody is signed in; NoAnswer */
export async function whoAmI(): Promise<Who> {
  const { data: me } = await ask<MeAnswer>('/me');
  const choice = localStorage.getItem(`${CHOICE}.${me.organization.id}`);
  return me.mayActFor && choice !== null ? await actFor(me, choice) : { me, actingFor: null };
}

/** Chooses the agent to act for; nobody when it is not there any more. */
export async function actFor(me: MeAnswer, agentId: string | null): Promise<Who> {
  const name = `${CHOICE}.${me.organization.id}`;
  if (agentId !== null) {
    try {
      const { data } = await ask<MeAnswer>('/me', { actingFor: agentId });
      localStorage.setItem(name, agentId);
      return { me: data, actingFor: agentId };
    } catch {
      // It was archived since: the page goes on as the key itself.
    }
  }
  localStorage.removeItem(name);
  const { data } = await ask<MeAnswer>('/me');
  return { me: data, actingFor: null };
}

/** @throws Refused, NoAnswer */
export async function signIn(by: { readonly key: string } | { readonly link: string }): Promise<void> {
  await ask('/console/session', { method: 'POST', body: by });
}

/** @throws Refused, NoAnswer */
export async function signOut(): Promise<void> {
  await ask('/console/session', { method: 'DELETE' });
}

/** The one-time link in the address, which is taken out of it, so that it stays in no history. */
export function linkInAddress(): string | null {
  const link = /^#sign-in=([\w-]+)$/.exec(location.hash)?.[1] ?? null;
  if (link !== null) history.replaceState(null, '', location.pathname + location.search);
  return link;
}
