import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const SCRIPT = fileURLToPath(new URL('../scripts/rfc-map/make.mjs', import.meta.url));

test('docs/rfc7143-map.md is current: scripts/rfc-map/make.mjs makes it again', async () => {
  const told = await promisify(execFile)(process.execPath, [SCRIPT, '--check']).catch(
    (error: unknown) => error,
  );
  expect(told).toMatchObject({ stderr: '' });
});
