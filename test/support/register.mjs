// node --import: lets a process run TypeScript sources, as the bench does.
import { register } from 'node:module';

register('./typescript.mjs', import.meta.url);
