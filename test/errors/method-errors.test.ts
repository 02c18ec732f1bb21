import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { METHOD_TEXTS } from '../../scripts/reference/method-texts.mjs';
import { EXIT_CODES } from '../../src/errors/exit-codes.js';

const SRC = new URL('../../src/', import.meta.url);
const SOURCE = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => readFileSync(new URL(name, SRC), 'utf8'))
  .join('\n');
const STATUSES: readonly number[] = Object.values(EXIT_CODES).map(({ code }) => code);

/** No table says which errors a method can throw: an error that a list omits is not found. */
it.each(Object.entries(METHOD_TEXTS))(
  'the errors of %s in docs/CONTROL-API.md exist in the code',
  (_name, { errors }) => {
    const unknown = errors.filter(
      ([status, code]) =>
        !STATUSES.includes(status) || (code !== '' && !SOURCE.includes(`'${code}'`)),
    );
    expect(unknown).toEqual([]);
  },
);
