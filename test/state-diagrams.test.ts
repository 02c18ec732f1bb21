import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const SCRIPT = fileURLToPath(new URL('../scripts/state-diagrams/make.mjs', import.meta.url));

test('the state diagrams of docs/ARCHITECTURE.md are those of the tables in the code', async () => {
  const result = await promisify(execFile)(process.execPath, [SCRIPT, '--check']).catch(
    (error: unknown) => error,
  );
  expect(result).toMatchObject({ stderr: '' });
});
