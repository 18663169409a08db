/** The rows of a long list that are made: those in sight and some on both sides. */
export interface RowWindow {
  readonly first: number;
  /** One past the last. */
  readonly end: number;
}

/** Rows beyond the edges, so that a short scroll shows no gap. */
const BEYOND = 8;
/** However high the screen is. */
const MOST = 60;

/** All rows have the same height, so that this is all there is to it. */
export function windowOfRows(count: number, rowHeight: number, scrolled: number, height: number): RowWindow {
  const first = Math.min(Math.max(0, Math.floor(scrolled / rowHeight) - BEYOND), Math.max(0, count - 1));
  const end = Math.min(count, first + MOST, Math.ceil((scrolled + height) / rowHeight) + BEYOND);
  return { first, end: Math.max(first, end) };
}

/** Where to scroll to so that a row is in sight; undefined when it is. */
export function scrollFor(row: number, rowHeight: number, scrolled: number, height: number): number | undefined {
  if (row * rowHeight < scrolled) return row * rowHeight;
  if ((row + 1) * rowHeight > scrolled + height) return (row + 1) * rowHeight - height;
  return undefined;
}
