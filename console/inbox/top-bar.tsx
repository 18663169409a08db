import { hintOf } from '../keys.js';
import type { FeedState } from '../api/live-feed.js';
import type { InboxModel } from './inbox-model.js';

const STATES: Readonly<Record<FeedState, string>> = {
  connecting: 'Connecting …',
  live: 'Live',
  away: 'Not connected: what is shown may be old',
  'signed out': 'Signed out',
};

export function TopBar({ model, showKeys }: { readonly model: InboxModel; readonly showKeys: () => void }) {
  const { me, actingFor } = model.who;
  const state = model.feed.value;
  const mayChoose = me.mayActFor || actingFor !== null;
  return (
    <header class="top">
      <p class="brand">
        <strong>Threadlog</strong> <span class="organization">{me.organization.name}</span>
      </p>
      <p class={`feed is-${state.replace(' ', '-')}`} role="status">
        {STATES[state]}
      </p>
      <div class="who">
        {mayChoose ? (
          <label>
            Acting for{' '}
            <select
              value={actingFor ?? ''}
              onChange={(event) => model.actFor(event.currentTarget.value === '' ? null : event.currentTarget.value)}
            >
              <option value="">nobody ({me.keyName})</option>
              {model.agents.value.map(({ id, name }) => (
                <option key={id} value={id} selected={id === actingFor}>
                  {name}
                </option>
              ))}
            </select>
          </label>
        ) : (
          <span>
            {model.author.name} ({me.role})
          </span>
        )}
        <button type="button" onClick={showKeys} aria-keyshortcuts="?">
          Keys <kbd>{hintOf('help')}</kbd>
        </button>
        <button type="button" onClick={() => void model.signOut()}>
          Sign out
        </button>
      </div>
    </header>
  );
}
