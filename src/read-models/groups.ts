/** The group of projections that lists, people, settings and the feed of events are read from. */
export const CORE_GROUP = 'core';
