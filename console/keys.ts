/** What a key does. */
export type Action = 'next' | 'previous' | 'open' | 'back' | 'reply' | 'note' | 'send' | 'resolve' | 'reopen' | 'apply' | 'view' | 'help';

export interface KeyBinding {
  readonly action: Action;
  /** As KeyboardEvent.key. */
  readonly keys: readonly string[];
  /** With Ctrl, or with Cmd on a Mac. */
  readonly withControl?: true;
  readonly says: string;
}

/** Every key of the console. The sheet, the hints in buttons and the tests are made from this table. */
export const KEYS: readonly KeyBinding[] = [
  { action: 'next', keys: ['j'], says: 'Next conversation' },
  { action: 'previous', keys: ['k'], says: 'Previous conversation' },
  { action: 'open', keys: ['Enter'], says: 'Open the conversation' },
  { action: 'back', keys: ['Escape'], says: 'Back: out of the text, then to the list' },
  { action: 'reply', keys: ['r'], says: 'Reply' },
  { action: 'note', keys: ['n'], says: 'Write a note for the team' },
  { action: 'send', keys: ['Enter'], withControl: true, says: 'Send' },
  { action: 'resolve', keys: ['e'], says: 'Resolve' },
  { action: 'reopen', keys: ['o'], says: 'Open again' },
  { action: 'apply', keys: ['u'], says: 'Put the list in order' },
  { action: 'view', keys: ['1', '2', '3', '4', '5'], says: 'Go to a view' },
  { action: 'help', keys: ['?'], says: 'Show these keys' },
];

/** The part of a KeyboardEvent that decides. */
export interface Pressed {
  readonly key: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
  /** It is part of a character that is being composed. */
  readonly isComposing: boolean;
}

/**
 * What a pressed key asks for; undefined for what belongs to the browser or to a field.
 * @param isTyping the focus is in a field: then only keys with Ctrl or Cmd are ours, and Escape
 */
export function actionOf(pressed: Pressed, isTyping: boolean): Action | undefined {
  if (pressed.isComposing || pressed.altKey) return undefined;
  const withControl = pressed.ctrlKey || pressed.metaKey;
  const found = KEYS.find((one) => (one.withControl === true) === withControl && one.keys.includes(pressed.key));
  return found !== undefined && isTyping && !withControl && found.action !== 'back' ? undefined : found?.action;
}

/** How a key is written on a button or in the sheet. */
export function keysSaid({ keys, withControl }: KeyBinding): string {
  const names: Readonly<Record<string, string>> = { Escape: 'Esc' };
  const said = keys.map((key) => names[key] ?? key);
  const all = said.length > 2 ? `${said[0] ?? ''}–${said.at(-1) ?? ''}` : said.join(' or ');
  return withControl === true ? `Ctrl+${all}` : all;
}

/** The key of an action, for the hint in its button. */
export function hintOf(action: Action): string {
  const found = KEYS.find((one) => one.action === action);
  return found === undefined ? '' : keysSaid(found);
}
