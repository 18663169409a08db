import { useComputed, useSignalEffect } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { type Action, actionOf } from '../keys.js';
import { isPlain } from '../kit/plain-click.js';
import { show } from '../store/conversation-store.js';
import { ConversationList } from './conversation-list.js';
import { ConversationPane } from './conversation-pane.js';
import type { InboxModel } from './inbox-model.js';
import { KeySheet } from './key-sheet.js';
import { TopBar } from './top-bar.js';
import { VIEWS } from './views.js';

/** Support > Inbox. */
export function Inbox({ model }: { readonly model: InboxModel }) {
  const sheet = useRef<HTMLDialogElement>(null);
  const isOpen = useComputed(() => model.place.value.conversationId !== null);
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (isForTheComposer(model, event)) return event.preventDefault();
      const target = event.target instanceof HTMLElement ? event.target : document.body;
      const action = actionOf(event, isField(target));
      if (action === undefined || event.defaultPrevented || document.querySelector('dialog[open]') !== null) return;
      // Enter on a button or a link is the browser's, and so are the digits of a list that is open.
      if (action === 'open' && target.closest('a, button, summary, select') !== null) return;
      // Only the composer can be sent, and it does so itself.
      if (action === 'send') return;
      event.preventDefault();
      act(model, action, event.key, sheet.current);
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  }, [model]);
  useSignalEffect(() => {
    const waiting = model.counts.value.get('waiting') ?? 0;
    document.title = waiting > 0 ? `(${waiting}) Inbox – Threadlog` : 'Inbox – Threadlog';
  });
  return (
    <div class={isOpen.value ? 'inbox is-open' : 'inbox'}>
      <TopBar model={model} showKeys={() => sheet.current?.showModal()} />
      <nav class="views" aria-label="Views">
        <ul>
          {VIEWS.map(({ id, title }, place) => (
            <li key={id}>
              <a
                href={model.addressOf({ view: id, conversationId: null })}
                aria-current={model.place.value.view === id ? 'page' : undefined}
                aria-keyshortcuts={String(place + 1)}
                onClick={(event) => {
                  if (isPlain(event)) model.go({ view: id, conversationId: null });
                }}
              >
                <span>{title}</span> <span class="count">{model.counts.value.get(id) ?? ''}</span>
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <ConversationList model={model} />
      <ConversationPane model={model} />
      <KeySheet element={sheet} />
    </div>
  );
}

const isField = (element: HTMLElement) => element.closest('input, textarea, select, [contenteditable]') !== null;

/**
 * Whoever asks for the composer goes on typing at once. Until it is there, the letters are kept for it: taken for keys of the console they
 * would do things that nobody asked for.
 */
function isForTheComposer(model: InboxModel, { key, ctrlKey, metaKey, altKey }: KeyboardEvent): boolean {
  const asked = model.writing.value;
  if (asked === null) return false;
  if (key === 'Escape') model.writing.value = null;
  else if (key.length === 1 && !ctrlKey && !metaKey && !altKey) model.writing.value = { ...asked, typed: asked.typed + key };
  return true;
}

function act(model: InboxModel, action: Action, key: string, sheet: HTMLDialogElement | null): void {
  const { conversationId } = model.place.value;
  switch (action) {
    case 'next':
    case 'previous':
      return move(model, action === 'next' ? 1 : -1);
    case 'open':
      if (model.cursor.value !== null) model.go({ conversationId: model.cursor.value });
      return;
    case 'back':
      return back(model);
    case 'reply':
    case 'note':
      return write(model, action);
    case 'resolve':
    case 'reopen':
      if (conversationId !== null) model.setStatus(conversationId, action === 'resolve' ? 'resolved' : 'open');
      return;
    case 'apply':
      return model.apply();
    case 'view': {
      const view = VIEWS[Number(key) - 1];
      if (view !== undefined) model.go({ view: view.id, conversationId: null });
      return;
    }
    case 'help':
      return sheet?.showModal();
    case 'send':
      return;
  }
}

/** Moves the cursor, and the focus with it. It asks the server nothing. */
function move(model: InboxModel, step: 1 | -1): void {
  const { ids } = model.order.value;
  const at = model.cursor.value === null ? -1 : ids.indexOf(model.cursor.value);
  const next = ids[at === -1 ? 0 : Math.min(ids.length - 1, Math.max(0, at + step))];
  if (next === undefined) return;
  model.cursor.value = next;
  model.focusOn.value = { id: next };
}

/** First out of the text, then out of the conversation. */
function back(model: InboxModel): void {
  const field = document.activeElement instanceof HTMLTextAreaElement ? document.activeElement : null;
  field?.blur();
  const { cursor, place } = model;
  if (field === null && place.value.conversationId !== null) model.go({ conversationId: null });
  if (cursor.value !== null) model.focusOn.value = { id: cursor.value };
}

function write(model: InboxModel, type: 'reply' | 'note'): void {
  const id = model.place.value.conversationId ?? model.cursor.value;
  if (id === null || !model.mayWrite || show(model.store.value, id)?.summary.status === 'closed') return;
  if (model.place.value.conversationId === null) model.go({ conversationId: id });
  model.writing.value = { type, typed: '' };
}
