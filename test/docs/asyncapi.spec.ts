import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Ajv } from 'ajv';
import addFormats from 'ajv-formats';
import { AppModule } from '../../src/app.module.js';
import { asyncApiDocument } from '../../src/docs/asyncapi.js';
import { LIVE_TYPES } from '../../src/live/live-filter.js';
import { LIVE_MESSAGES } from '../../src/live/live-message.js';

const document = JSON.parse(JSON.stringify(asyncApiDocument(AppModule.providers)));

test('the AsyncAPI document is valid by the official schema of AsyncAPI 3.0, and the check can fail', () => {
  const schema = JSON.parse(
    readFileSync(createRequire(import.meta.url).resolve('@asyncapi/specs/schemas/3.0.0-without-$id.json'), 'utf8'),
  ) as object;
  const ajv = new Ajv({ strict: false, allErrors: true, logger: false });
  addFormats.default(ajv);
  const validate = ajv.compile(schema);
  validate(document);
  expect(validate.errors).toBe(null);
  expect(validate({ ...document, channels: { live: { address: 7 } } })).toBe(false);
});

test('every reference of the AsyncAPI document leads somewhere, and every type of frame and message is in it', () => {
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path = '']) => path);
  const missing = references.filter(
    (path) =>
      path.split('/').reduce<unknown>((node, name) => (node as Record<string, unknown> | undefined)?.[name], document) === undefined,
  );
  expect(missing).toEqual([]);
  expect(references.length).toBeGreaterThan(50);
  const names = Object.keys(document.channels.live.messages as object);
  expect(names.toSorted()).toEqual(['ready', 'error', 'auth', ...LIVE_TYPES, ...Object.keys(LIVE_MESSAGES)].toSorted());
  expect(Object.keys(document.channels.webhooks.messages as object)).toEqual(['webhook.message', 'webhook.disabled', 'webhook.ping']);
});
