import { expect, test } from 'vitest';
import { RunCommand } from '../../src/cli/run-command.js';

test('the command of --run gets its variables and none of our secrets', async () => {
  const environment = {
    PATH: process.env['PATH'],
    LIBISCSI_CHAP_PASSWORD: 'ours',
    LIBISCSI_CHAP_TARGET_PASSWORD: 'theirs',
    LIBISCSI_CHAP_USERNAME: 'joe',
    uri: 'nbd+unix:///',
  };
  const seen = 'test "$uri$LIBISCSI_CHAP_USERNAME" = nbd+unix:///joe && exit 3';
  const leak = 'env | grep -q PASSWORD && exit 4';
  expect(await new RunCommand(`${leak}; ${seen}`, environment).finished).toBe(3);
});
