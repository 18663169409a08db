import { signal } from '@preact/signals';
import { render } from 'preact';
import { NoAnswer } from './api/request.js';
import { Inbox } from './inbox/inbox.js';
import { InboxModel } from './inbox/inbox-model.js';
import { actFor, linkInAddress, signIn, whoAmI, type Who } from './session.js';
import { SignIn } from './sign-in.js';

type Shown =
  | { readonly screen: 'nothing' }
  | { readonly screen: 'sign-in'; readonly says: string | null }
  | { readonly screen: 'inbox'; readonly model: InboxModel };

const shown = signal<Shown>({ screen: 'nothing' });

function leave(): void {
  if (shown.value.screen === 'inbox') shown.value.model.close();
}

function enter(who: Who): void {
  leave();
  const model = new InboxModel(who, {
    signedOut: (says) => askToSignIn(says),
    actFor: (agentId) => void actFor(who.me, agentId).then(enter, () => undefined),
  });
  shown.value = { screen: 'inbox', model };
}

function askToSignIn(says: string | null): void {
  leave();
  shown.value = { screen: 'sign-in', says };
}

async function begin(): Promise<void> {
  const link = linkInAddress();
  let says: string | null = null;
  if (link !== null) {
    try {
      await signIn({ link });
    } catch (error) {
      says =
        error instanceof NoAnswer
          ? 'The server cannot be reached.'
          : 'The link was used before, or is older than a day. A key opens the console too.';
    }
  }
  try {
    enter(await whoAmI());
  } catch (error) {
    askToSignIn(error instanceof NoAnswer ? 'The server cannot be reached.' : says);
  }
}

function Console() {
  switch (shown.value.screen) {
    case 'nothing':
      return null;
    case 'sign-in':
      return <SignIn says={shown.value.says} signedIn={begin} />;
    case 'inbox':
      return <Inbox model={shown.value.model} />;
  }
}

const root = document.getElementById('console');
if (root !== null) render(<Console />, root);
void begin();
