import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const SCRIPT = fileURLToPath(new URL('../scripts/reference/make.mjs', import.meta.url));

test('the pages on options, control methods, events and metrics are current and complete', async () => {
  const result = await promisify(execFile)(process.execPath, [SCRIPT, '--check']).catch(
    (error: unknown) => error,
  );
  expect(result).toMatchObject({ stderr: '' });
});
