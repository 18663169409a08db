import { RE2JS } from 're2js';
import { MATCHED_CHARACTERS, MAX_PATTERN, MAX_PATTERN_STEPS } from './rule-fields.js';

/*
 * Patterns of the operator `matches`. RE2 takes time in proportion to the text, whatever the pattern: there is no backtracking that a
 * pattern could blow up, and no lookaround or backreference that would need it.
 */

/**
 * The memory of a pattern's automaton (bytes). RE2 builds the automaton as it reads, and takes 8 MiB by default: on a text that visits a new
 * state with every character, building takes ten times as long as reading without an automaton does, which RE2 turns to when this is full.
 */
const AUTOMATON_BYTES = 64 * 1024;

/** Says what is wrong with a pattern; undefined for a good one. */
export function patternFault(pattern: string): string | undefined {
  if (pattern.length > MAX_PATTERN) return `must have at most ${MAX_PATTERN} characters`;
  try {
    const steps = RE2JS.compile(pattern).programSize();
    return steps > MAX_PATTERN_STEPS
      ? `compiles to ${steps} steps of at most ${MAX_PATTERN_STEPS}: shorten it, or use smaller numbers in {}`
      : undefined;
  } catch (error) {
    const said = error instanceof Error ? error.message.replace(/^error parsing regexp: /, '') : 'unreadable';
    return `is not a pattern of RE2, which knows no lookaround and no backreferences: ${said}`;
  }
}

/** Whether a pattern is found in a text. */
export type Pattern = (text: string) => boolean;

/**
 * Makes a pattern without a fault ready. It looks at the first characters of a text (MATCHED_CHARACTERS). It is compiled at its first look,
 * since an organization's rules may have thousands of patterns, which would otherwise be compiled at a stretch.
 */
export function compilePattern(pattern: string): Pattern {
  let compiled: RE2JS | undefined;
  return (text) => {
    compiled ??= compile(pattern);
    return compiled.test(text.length > MATCHED_CHARACTERS ? text.slice(0, MATCHED_CHARACTERS) : text);
  };
}

function compile(pattern: string): RE2JS {
  const compiled = RE2JS.compile(pattern);
  const automaton = compiled.re2Input.dfa;
  automaton.stateBudget = AUTOMATON_BYTES;
  automaton.memBudget = AUTOMATON_BYTES;
  return compiled;
}
