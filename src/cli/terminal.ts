import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { printable, printableJson } from './printable.js';

/**
 * Writes a command's output: answers to standard output, everything else to standard error. Lines may quote names and other foreign texts,
 * so everything except our own text is made printable here.
 */
export class Terminal {
  #progress = '';

  constructor(
    private readonly output: Writable,
    private readonly errors: Writable & Partial<Pick<NodeJS.WriteStream, 'isTTY' | 'columns'>>,
  ) {}

  /** A line of the answer. */
  answer(line: string): void {
    this.#write(printable(line));
  }

  /** Several lines of our own, such as a command's help. They must not contain foreign texts. */
  text(lines: string): void {
    this.#write(lines);
  }

  /** An answer for a program: one JSON document on one line. */
  json(value: unknown): void {
    this.#write(printableJson(value));
  }

  /** A raw part of an answer, which must be printable or meant for a file; waits for a slow reader. */
  async raw(chunk: string): Promise<void> {
    if (!this.output.write(chunk)) await once(this.output, 'drain');
  }

  /** Columns with their names, or a sentence when there are no rows. */
  table(columns: readonly string[], rows: readonly (readonly string[])[], none: string): void {
    if (rows.length === 0) return this.answer(none);
    const shown = rows.map((row) => row.map(printable));
    const widths = columns.map((column, i) => Math.max(column.length, ...shown.map((row) => (row[i] ?? '').length)));
    for (const row of [columns, ...shown])
      this.#write(
        row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join('  ')
          .trimEnd(),
      );
  }

  /** Information that is not part of the answer. */
  note(line: string): void {
    this.#clear();
    this.errors.write(`${printable(line)}\n`);
  }

  /** Replaces the progress line. Shown only on a terminal: a file or a pipe gets none of it. */
  progress(told: string): void {
    const line = printable(told);
    if (this.errors.isTTY !== true || line === this.#progress) return;
    this.#progress = line;
    this.errors.write(`\r\u001b[K${line.slice(0, Math.max((this.errors.columns ?? 80) - 1, 20))}`);
  }

  #write(lines: string): void {
    this.#clear();
    this.output.write(`${lines}\n`);
  }

  #clear(): void {
    if (this.#progress === '') return;
    this.#progress = '';
    this.errors.write('\r\u001b[K');
  }
}

/** 12174 → 12,174 */
export const count = (n: number) => Math.round(n).toLocaleString('en-US');

/** 1 conversation, 2 conversations */
export const counted = (n: number, one: string, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
