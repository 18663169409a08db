import { effect, untracked, useComputed, useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import { hintOf } from '../keys.js';
import { isPlain } from '../kit/plain-click.js';
import { scrollFor, windowOfRows } from '../kit/window-of-rows.js';
import { show } from '../store/conversation-store.js';
import type { InboxModel } from './inbox-model.js';
import { snippetOf } from './message-text.js';
import { TimeSaid } from './time-said.js';
import { visitorName } from './visitor-name.js';

/** As in style.css. */
const ROW_HEIGHT = 76;
/** Rows from the end at which the next ones are read. */
const AHEAD = 20;

/** The rows of the view. Only those in sight are made; while pointer or focus is among them, none moves. */
export function ConversationList({ model }: { readonly model: InboxModel }) {
  const scroller = useRef<HTMLDivElement>(null);
  const scrolled = useSignal(0);
  const height = useSignal(600);
  const isPointed = useSignal(false);
  const isFocused = useSignal(false);
  const rows = useComputed(() => windowOfRows(model.order.value.ids.length, ROW_HEIGHT, scrolled.value, height.value));

  useEffect(() => {
    const element = scroller.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => (height.value = element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useSignalEffect(() => {
    model.isHeld.value = isPointed.value || isFocused.value;
  });
  useSignalEffect(() => {
    if (rows.value.end > model.order.value.ids.length - AHEAD) model.readMore();
  });
  // Not useSignalEffect, which runs a moment later: the next key may be pressed already.
  useLayoutEffect(
    () =>
      effect(() => {
        const { id } = model.focusOn.value ?? {};
        const element = scroller.current;
        if (id === undefined || element === null) return;
        const row = model.order.peek().ids.indexOf(id);
        const to = scrollFor(row, ROW_HEIGHT, element.scrollTop, element.clientHeight);
        if (row !== -1 && to !== undefined) {
          element.scrollTop = to;
          untracked(() => (scrolled.value = to));
        }
        const focus = () => {
          const made = element.querySelector<HTMLElement>(`a[data-id="${CSS.escape(id)}"]`);
          made?.focus({ preventScroll: true });
          return made !== null;
        };
        // A row that has just come into sight is made with the next picture.
        if (!focus()) requestAnimationFrame(focus);
      }),
    [model],
  );

  const { ids, moved } = model.order.value;
  const { first, end } = rows.value;
  return (
    <section class="list" aria-label={model.view.value.title}>
      <div class="list-head">
        <h1>{model.view.value.title}</h1>
        <button type="button" class="moved" hidden={moved === 0} onClick={() => model.apply()} aria-keyshortcuts="u">
          {moved} moved <kbd>{hintOf('apply')}</kbd>
        </button>
      </div>
      <div
        class="rows"
        ref={scroller}
        onScroll={(event) => (scrolled.value = event.currentTarget.scrollTop)}
        onPointerEnter={(event) => (isPointed.value = event.pointerType === 'mouse')}
        onPointerLeave={() => (isPointed.value = false)}
        onFocusIn={() => (isFocused.value = true)}
        onFocusOut={() => (isFocused.value = false)}
      >
        {ids.length === 0 ? (
          <p class="empty">{model.isReading.value ? 'Reading …' : model.view.value.empty}</p>
        ) : (
          <ol style={{ height: `${ids.length * ROW_HEIGHT}px` }}>
            {ids.slice(first, end).map((id, place) => (
              <Row key={id} model={model} id={id} place={first + place} count={ids.length} />
            ))}
          </ol>
        )}
      </div>
    </section>
  );
}

interface RowOf {
  readonly model: InboxModel;
  readonly id: string;
  readonly place: number;
  readonly count: number;
}

/** Painted again only when its own conversation changes. */
function Row({ model, id, place, count }: RowOf) {
  const summary = useComputed(() => {
    const store = model.store.value;
    return store.pending.some(({ conversationId }) => conversationId === id) ? show(store, id)?.summary : store.known.get(id)?.summary;
  });
  const isOpen = useComputed(() => model.place.value.conversationId === id);
  if (summary.value === undefined) return null;
  const { visitor, status, subject, lastMessage, updatedAt, assignee, priority, waitingSince } = summary.value;
  return (
    <li style={{ top: `${place * ROW_HEIGHT}px` }} aria-posinset={place + 1} aria-setsize={count}>
      <a
        href={model.addressOf({ conversationId: id })}
        data-id={id}
        aria-current={isOpen.value ? 'true' : undefined}
        onFocus={() => (model.cursor.value = id)}
        onClick={(event) => {
          if (isPlain(event)) model.go({ conversationId: id });
        }}
      >
        <span class="row-top">
          <bdi class="name">{visitorName(summary.value)}</bdi>
          <TimeSaid at={waitingSince ?? updatedAt} />
        </span>
        <span class="row-subject">
          <bdi>{subject ?? snippetOf(lastMessage)}</bdi>
        </span>
        <span class="row-facts">
          <span class={`status is-${status}`}>{status}</span>
          {waitingSince === null ? null : <span class="waits">waits</span>}
          {priority === 'normal' ? null : <span class={`priority is-${priority}`}>{priority}</span>}
          <bdi class="assignee">{assignee?.name ?? 'nobody'}</bdi>
          {subject === null || visitor.name === null ? null : <bdi class="snippet">{snippetOf(lastMessage)}</bdi>}
        </span>
      </a>
    </li>
  );
}
