import { useComputed } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import type { MessageAnswer } from '../../src/conversations/conversation.answer.js';
import { hintOf } from '../keys.js';
import { isPlain } from '../kit/plain-click.js';
import { show, type ShownConversation, type ShownMessage } from '../store/conversation-store.js';
import { Composer } from './composer.js';
import type { InboxModel } from './inbox-model.js';
import { safeAddress } from './message-text.js';
import { TimeSaid } from './time-said.js';
import { visitorName } from './visitor-name.js';

/** How near to the end counts as being there (px). */
const AT_END = 60;

/** The open conversation. */
export function ConversationPane({ model }: { readonly model: InboxModel }) {
  const id = model.place.value.conversationId;
  const shown = useComputed(() => {
    const { conversationId } = model.place.value;
    return conversationId === null ? undefined : show(model.store.value, conversationId);
  });
  if (id === null) {
    return (
      <main class="pane is-empty">
        <p>
          <kbd>{hintOf('next')}</kbd> and <kbd>{hintOf('previous')}</kbd> choose a conversation, <kbd>Enter</kbd> opens it.
        </p>
      </main>
    );
  }
  if (shown.value === undefined)
    return (
      <main class="pane is-empty">
        {model.unknownId.value === id ? <p role="alert">There is no such conversation.</p> : <p>Reading …</p>}
      </main>
    );
  return (
    <main class="pane">
      <Head model={model} shown={shown.value} />
      <Messages key={id} shown={shown.value} me={model.author.id} />
      {model.mayWrite ? <Composer key={`composer ${id}`} model={model} id={id} shown={shown.value} /> : null}
    </main>
  );
}

function Head({ model, shown }: { readonly model: InboxModel; readonly shown: ShownConversation }) {
  const { summary } = shown;
  const { visitor, status, tags } = summary;
  const facts: readonly (readonly [string, string | null])[] = [
    ['Status', status === 'snoozed' && summary.snoozedUntil === 'next_reply' ? 'snoozed until the visitor writes' : status],
    ['Assignee', summary.assignee?.name ?? 'nobody'],
    ['Team', summary.team?.name ?? null],
    ['Priority', summary.priority === 'normal' ? null : summary.priority],
    ['E-mail', visitor.email],
    ['Plan', visitor.plan],
    ['Tags', tags.length === 0 ? null : tags.join(', ')],
  ];
  const change = status === 'resolved' ? ('open' as const) : ('resolved' as const);
  return (
    <header class="pane-head">
      <a
        class="back"
        href={model.addressOf({ conversationId: null })}
        onClick={(event) => {
          if (isPlain(event)) model.go({ conversationId: null });
        }}
      >
        Back to the list
      </a>
      <div class="title">
        <h2>
          <bdi>{visitorName(summary)}</bdi>
          {summary.subject === null ? null : (
            <>
              {' – '}
              <bdi>{summary.subject}</bdi>
            </>
          )}
        </h2>
        {model.mayWrite && status !== 'closed' ? (
          <button type="button" onClick={() => model.setStatus(summary.id, change)}>
            {change === 'open' ? 'Open again' : 'Resolve'} <kbd>{hintOf(change === 'open' ? 'reopen' : 'resolve')}</kbd>
          </button>
        ) : null}
      </div>
      <dl>
        {facts.map(([name, value]) =>
          value === null ? null : (
            <div key={name}>
              <dt>{name}</dt>
              <dd>
                <bdi>{value}</bdi>
              </dd>
            </div>
          ),
        )}
      </dl>
    </header>
  );
}

/** Stays at the end while it is there, and where its reader is otherwise. */
function Messages({ shown, me }: { readonly shown: ShownConversation; readonly me: string }) {
  const scroller = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  const { messages, summary, isWhole } = shown;
  useLayoutEffect(() => {
    const element = scroller.current;
    if (element !== null && isAtEnd.current) element.scrollTop = element.scrollHeight;
  }, [messages.length, isWhole]);
  useEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    // The composer grows while somebody writes, and messages take their height when they come into sight.
    const observer = new ResizeObserver(() => {
      if (isAtEnd.current) element.scrollTop = element.scrollHeight;
    });
    for (const one of [element, ...element.children]) observer.observe(one);
    return () => observer.disconnect();
  }, []);
  const earlier = summary.messageCount - messages.length;
  return (
    // A region that scrolls must be reachable by keyboard.
    // oxlint-disable-next-line jsx-a11y/no-noninteractive-tabindex
    <div
      class="messages"
      ref={scroller}
      tabIndex={0}
      role="log"
      aria-label="Messages"
      onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) =>
        (isAtEnd.current = scrollHeight - scrollTop - clientHeight < AT_END)
      }
    >
      {!isWhole ? <p class="empty">Reading …</p> : earlier > 0 ? <p class="empty">{earlier} earlier messages</p> : null}
      <ol>
        {messages.map(({ message, isPending }) => (
          <Said
            key={message.id}
            message={message}
            isPending={isPending}
            isMine={message.author?.id === me}
            visitor={visitorName(summary)}
          />
        ))}
      </ol>
    </div>
  );
}

const KINDS: Readonly<Record<MessageAnswer['type'], string>> = {
  visitor: 'wrote',
  agent: 'answered',
  note: 'noted for the team',
  automation: 'answered automatically',
};

/** Whatever somebody wrote is shown as text. */
function Said({ message, isPending, isMine, visitor }: ShownMessage & { readonly isMine: boolean; readonly visitor: string }) {
  const { type, content, attachments = [], author, createdAt } = message;
  return (
    <li class={`message is-${type}${isMine ? ' is-mine' : ''}${isPending ? ' is-pending' : ''}`}>
      <p class="by">
        <bdi>{author?.name ?? (type === 'visitor' ? visitor : 'Threadlog')}</bdi> <span>{KINDS[type]}</span> <TimeSaid at={createdAt} />
        {isPending ? <span class="on-its-way"> · on its way</span> : null}
      </p>
      {typeof content === 'string' ? (
        <p class="text" dir="auto">
          {content}
        </p>
      ) : content !== null ? (
        <div class="card">
          <p class="text" dir="auto">
            <strong>{content.title}</strong>
          </p>
          {content.description === undefined ? null : (
            <p class="text" dir="auto">
              {content.description}
            </p>
          )}
          {content.actions?.map(({ label, url, action }) => (
            <p key={label}>{url === undefined ? `${label} (${action ?? ''})` : <Outside url={url}>{label}</Outside>}</p>
          ))}
        </div>
      ) : attachments.length === 0 ? (
        <p class="withheld">Your role may not read it.</p>
      ) : null}
      {attachments.map(({ url, name }) => (
        <p key={url}>
          <Outside url={url}>{name}</Outside>
        </p>
      ))}
    </li>
  );
}

/** A link to what lies elsewhere: never loaded by itself, and told nothing about this page. */
function Outside({ url, children }: { readonly url: string; readonly children: string }) {
  const address = safeAddress(url);
  if (address === undefined) return <bdi>{children}</bdi>;
  return (
    <a href={address} target="_blank" rel="noopener noreferrer">
      <bdi>{children}</bdi>
    </a>
  );
}
