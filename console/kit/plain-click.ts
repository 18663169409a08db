/** A click that the page answers itself; with a key held, the browser opens a tab. */
export function isPlain(event: MouseEvent): boolean {
  const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (plain) event.preventDefault();
  return plain;
}
