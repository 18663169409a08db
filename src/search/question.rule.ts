import { rule, textFault } from '../http/validation.js';
import { MOST_TERMS, questionOf } from './question.js';

/** Longest question, in characters. */
const MAX_QUESTION = 1_000;

/** The text that a search looks for. Any visible text is a question, but not one of hundreds of words. */
export const IsQuestion = () =>
  rule(
    'isQuestion',
    (value) => {
      const fault = textFault(value, MAX_QUESTION);
      if (fault !== undefined) return fault;
      return questionOf(value as string).terms.length <= MOST_TERMS ? undefined : `must have at most ${MOST_TERMS} words and phrases`;
    },
    { type: 'string', minLength: 1, maxLength: MAX_QUESTION },
  );
