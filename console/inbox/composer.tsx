import { effect, untracked, useComputed, useSignal, useSignalEffect } from '@preact/signals';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { actionOf, hintOf } from '../keys.js';
import type { SettableStatus, ShownConversation } from '../store/conversation-store.js';
import type { InboxModel } from './inbox-model.js';
import { snippetOf } from './message-text.js';

const STATUSES: readonly { readonly value: SettableStatus | ''; readonly title: string }[] = [
  { value: '', title: 'leave the status' },
  { value: 'open', title: 'open' },
  { value: 'pending', title: 'pending' },
  { value: 'resolved', title: 'resolved' },
  { value: 'closed', title: 'closed' },
];

/** Where a reply or a note is written. It is made anew for each conversation, so that a text cannot go to another one. */
export function Composer({ model, id, shown }: { readonly model: InboxModel; readonly id: string; readonly shown: ShownConversation }) {
  const draft = model.draftOf(id);
  const field = useRef<HTMLTextAreaElement>(null);
  const text = useSignal(draft.text);
  const type = useSignal(draft.type);
  const status = useSignal<SettableStatus | ''>('');
  const refusals = useComputed(() => model.store.value.refused.filter(({ command }) => command.conversationId === id));
  const meanwhile = useComputed(() => (text.value === '' ? [] : model.saidMeanwhile(id)));
  useSignalEffect(() => {
    if (model.givenBack.value === 0) return;
    const given = model.draftOf(id);
    text.value = given.text;
    type.value = given.type;
  });
  const write = (given: string) => {
    text.value = given;
    model.write(id, given, type.value);
  };
  // Not useSignalEffect, which runs a moment later: the next letter may be typed already.
  useLayoutEffect(
    () =>
      effect(() => {
        const asked = model.writing.value;
        if (asked === null || field.current === null) return;
        field.current.focus();
        untracked(() => {
          type.value = asked.type;
          model.writing.value = null;
          if (asked.typed !== '') write(text.value + asked.typed);
        });
      }),
    [model],
  );
  const send = () => {
    if (text.value.trim() === '') return;
    model.say(id, text.value, type.value, status.value === '' ? undefined : status.value);
    text.value = '';
    status.value = '';
    type.value = 'reply';
    field.current?.focus();
  };
  const sendAnyway = () => {
    model.haveRead(id);
    send();
  };
  const isRefused = refusals.value.length > 0;
  if (shown.summary.status === 'closed') return <p class="composer closed">The conversation is closed for good.</p>;
  return (
    <form
      class={`composer is-${type.value}`}
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {refusals.value.map(({ command, code, title }) => (
        <p key={command.key} role="alert" class="fault">
          {code === 'revision_mismatch' ? 'Not sent: somebody wrote while you did.' : `Not done: ${title}.`}{' '}
          <button type="button" onClick={() => model.dismiss(command.key)}>
            Dismiss
          </button>
        </p>
      ))}
      {meanwhile.value.length === 0 ? null : (
        <div role="status" class="meanwhile">
          <p>Since you began to write:</p>
          <ul>
            {meanwhile.value.map((message) => (
              <li key={message.id}>
                <bdi>{message.author?.name ?? 'The visitor'}</bdi>: <bdi>{snippetOf(message)}</bdi>
              </li>
            ))}
          </ul>
          <button type="button" onClick={() => (isRefused ? sendAnyway() : model.haveRead(id))}>
            {isRefused ? 'Send it anyway' : 'I have read it'}
          </button>
        </div>
      )}
      <fieldset>
        <legend class="unseen">Kind of message</legend>
        {(['reply', 'note'] as const).map((one) => (
          <label key={one}>
            <input
              type="radio"
              name="type"
              checked={type.value === one}
              onChange={() => {
                type.value = one;
                if (text.value !== '') model.write(id, text.value, one);
              }}
            />{' '}
            {one === 'reply' ? 'Reply' : 'Note'} <kbd>{hintOf(one)}</kbd>
          </label>
        ))}
      </fieldset>
      <label class="unseen" for="composer-text">
        {type.value === 'note' ? 'Note for the team' : 'Reply to the visitor'}
      </label>
      <textarea
        id="composer-text"
        ref={field}
        dir="auto"
        rows={3}
        maxLength={50_000}
        value={text}
        placeholder={type.value === 'note' ? 'Only the team sees a note' : 'The visitor sees a reply'}
        onInput={(event) => write(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (actionOf(event, true) !== 'send') return;
          event.preventDefault();
          send();
        }}
      />
      <div class="send">
        <label>
          and{' '}
          <select value={status.value} onChange={(event) => (status.value = event.currentTarget.value as SettableStatus | '')}>
            {STATUSES.map(({ value, title }) => (
              <option key={value} value={value}>
                {value === '' ? title : `set ${title}`}
              </option>
            ))}
          </select>
        </label>
        <button type="submit" class="primary">
          Send <kbd>{hintOf('send')}</kbd>
        </button>
      </div>
    </form>
  );
}
