import { CORE_GROUP } from '../../src/read-models/groups.js';
import { ReadModels } from '../../src/read-models/read-models.js';
import { READ_TABLES } from '../../src/features.js';

/** The read models of this build, for tests that have no backend. */
export const readModels = new ReadModels(READ_TABLES);

const core = readModels.groups.find(({ name }) => name === CORE_GROUP);
if (core === undefined) throw new Error('there is no group of lists');

export const coreGroup = core;
/** Of the views that lists are read from, for SQL as text. */
export const CORE_SCHEMA = core.schema;
