import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import {
  type LoginParams,
  resolveLogin,
  sessionOptionsOf,
} from '../../src/supervisor/resolved-login.js';

const BOOT = 'iqn.2001-04.com.example:root';
const stateDirectory = mkdtempSync(join(tmpdir(), 'boot-credentials-'));
afterAll(() => rmSync(stateDirectory, { recursive: true, force: true }));

const surroundings = {
  stateDirectory,
  environment: { ISCSI_NBD_INITIATOR_NAME: 'iqn.2001-04.com.example:host' },
  boot: {
    targetName: BOOT,
    environment: {
      ISCSI_NBD_INITIATOR_NAME: 'iqn.2001-04.com.example:host',
      LIBISCSI_CHAP_USERNAME: 'boot',
      LIBISCSI_CHAP_PASSWORD: 'secret of the root disk',
    },
  },
};

function optionsFor(targetName: string, sessionType: LoginParams['sessionType']) {
  const portal = { host: '192.0.2.1', port: 3260 };
  const request = { targetName, portal, sessionType, persistent: false, options: {} };
  return sessionOptionsOf(resolveLogin(request, surroundings), surroundings);
}

it('the boot target gets the credentials of the firmware', async () => {
  expect((await optionsFor(BOOT, 'boot')).chap?.user).toBe('boot');
});

it.each(['data', 'informational'] as const)(
  'no other target gets the credentials of the firmware in a session of type %s',
  async (sessionType) => {
    const { chap } = await optionsFor('iqn.2001-04.com.example:other', sessionType);
    expect(chap).toBe(undefined);
  },
);
