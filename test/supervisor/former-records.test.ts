/** Files as version 1 wrote them, byte for byte: `logins`, `sessions` (attach), `served` (serve). */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { deviceIdentifier } from '../../src/lun/device-identifier.js';
import { OwnedRecord } from '../../src/supervisor/owned-record.js';
import { leftBehind } from '../../src/supervisor/record-identity.js';
import { SessionRecords } from '../../src/supervisor/session-records.js';

const boot = vi.hoisted(() => ({ devices: [] as string[], id: '' }));
vi.mock('../../src/io/nbd-sysfs.js', async (original) => ({
  ...(await original<object>()),
  listConfigured: async () => boot.devices.map((identifier, index) => ({ index, identifier })),
}));
vi.mock('../../src/io/boot-id.js', () => ({ currentBootId: async () => boot.id }));

const BOOT = '8429f933-7726-41af-8ca5-4db4853cd7c0';
const NAMES = { initiatorName: 'iqn.2025-01.local:us', targetName: 'iqn.2025-01.local:it' };
const SUBJECT = {
  ...NAMES,
  sessionType: 'data',
  portal: { host: '192.0.2.1', port: 3260 },
} as const;

const FACTS =
  '{"vendor":"IET","product":"VIRTUAL-DISK","revision":"0001","serial":"beaf11","identifiers":' +
  '["naa.60000000000000000e00000000010001"],"deviceType":0,"blockSizeBytes":512,"blockCount":2048,' +
  '"physicalBlockExponent":0,"readOnly":false,"writeCacheEnabled":true,"dpoFua":true,' +
  '"commandQueuing":true,"rotational":null,"notes":[],"thin":{"unmap":false,' +
  '"writeSame16Unmap":false,"readsZero":false},"limits":{"maxTransferBlocks":4294967295}}';

const ATTACHED = {
  name: 'e2e587766d5e013c3e2235c3.json',
  text:
    '{"version":1,"sessionId":"8dbba24b7fc42091","isid":"808dbba24b7f",' +
    '"targetName":"iqn.2025-01.local:it","pid":6116,"disks":[{"lun":1,"facts":' +
    `${FACTS},"field":"4001000000000000"},{"lun":2,"facts":${FACTS}}],"bootId":"${BOOT}",` +
    '"portalGroupTag":1}\n',
};

const SERVED = {
  name: 'dfe3d09998f6c5c6b9135e5a.json',
  text:
    '{"version":1,"sessionId":"7bdbde14152ab159","isid":"807bdbde1415",' +
    `"targetName":"iqn.2025-01.local:it","pid":6116,"disks":[],"bootId":"${BOOT}"}\n`,
  lost: '{"sessionId":"7bdbde14152ab159","luns":[3],"written":[0]}',
};

const LOGIN = {
  name: 'f98cf4d3130520c2a1179f81.json',
  text:
    '{"version":1,"sessionId":"0123456789abcdef","isid":"800123456789","persistent":true,' +
    `"active":true,"handedOver":true,"unflushedLuns":[2],"bootId":"${BOOT}",` +
    '"initiatorName":"iqn.2025-01.local:us","targetName":"iqn.2025-01.local:it",' +
    '"sessionType":"data","portal":{"host":"192.0.2.1","port":3260},' +
    '"options":{"removalLatencySeconds":"never"},"disks":[{"lun":1,"facts":' +
    `${FACTS}}],"portalGroupTag":1}\n`,
};

let stateDirectory: string;
let warnings: string[];

beforeEach(() => {
  stateDirectory = mkdtempSync(join(tmpdir(), 'former-'));
  [boot.devices, boot.id, warnings] = [[], BOOT, []];
});
afterEach(() => rmSync(stateDirectory, { recursive: true }));

function put(folder: string, name: string, text: string): void {
  mkdirSync(join(stateDirectory, folder), { recursive: true });
  writeFileSync(join(stateDirectory, folder, name), text);
}

const onWarning = (message: string) => warnings.push(message);
const attached = () =>
  OwnedRecord.open({ ...SUBJECT, luns: [1, 2] }, { stateDirectory, onWarning });
const served = () =>
  OwnedRecord.open({ ...SUBJECT, socketPath: '/run/one.sock' }, { stateDirectory, onWarning });
const keptIn = (folder: string, name: string) =>
  JSON.parse(readFileSync(join(stateDirectory, folder, name), 'utf8'));

describe('a record that attach of version 1 has left', () => {
  it('a record of version 1 gives its devices, identity and portal group to the next attach', async () => {
    put('sessions', ATTACHED.name, ATTACHED.text);
    boot.devices = [1, 2].map((lun) => deviceIdentifier('8dbba24b7fc42091', lun));
    const owned = await attached();
    expect(warnings).toEqual([]);
    expect(owned.identity.sessionId).toBe('8dbba24b7fc42091');
    expect(Buffer.from(owned.identity.isid).toString('hex')).toBe('808dbba24b7f');
    expect(owned.record.portalGroupTag).toBe(1);
    expect(owned.record.disks.map(({ lun, field, facts }) => [lun, field, facts])).toEqual([
      [1, '4001000000000000', JSON.parse(FACTS)],
      [2, undefined, JSON.parse(FACTS)],
    ]);
    // Version 1 flushed nothing before it left its devices.
    expect(owned.left?.handedOver).toBe(undefined);
    const kept = keptIn('sessions', ATTACHED.name);
    expect(kept).toMatchObject({
      version: 2,
      ...SUBJECT,
      luns: [1, 2],
      sessionId: '8dbba24b7fc42091',
    });
    await owned.end(owned.record, { isLoggedOut: false, wasOpen: true });
  });

  it('a record without a boot ID gives its devices to the next attach too', async () => {
    put('sessions', ATTACHED.name, ATTACHED.text.replace(`"bootId":"${BOOT}",`, ''));
    boot.devices = [deviceIdentifier('8dbba24b7fc42091', 2)];
    const owned = await attached();
    expect(owned.record.disks.map(({ lun }) => lun)).toEqual([2]);
    await owned.end(owned.record, { isLoggedOut: false, wasOpen: true });
  });

  it('a record of version 1 gives its ISID to the next attach after a reboot', async () => {
    put('sessions', ATTACHED.name, ATTACHED.text);
    boot.id = 'another';
    const owned = await attached();
    expect(owned.record).toMatchObject({ isid: '808dbba24b7f', disks: [], bootId: 'another' });
    await owned.end(owned.record, { isLoggedOut: true, wasOpen: true });
    expect(readdirSync(join(stateDirectory, 'sessions'))).toEqual([]);
  });
});

describe('a record that serve of version 1 has left', () => {
  it('a record of version 1 gives its identity and its losses to the next serve on that socket', async () => {
    put('served', SERVED.name, SERVED.text);
    put('served', SERVED.name.replace('json', 'lost'), SERVED.lost);
    const owned = await served();
    expect(warnings).toEqual([]);
    expect(owned.record).toMatchObject({ sessionId: '7bdbde14152ab159', isid: '807bdbde1415' });
    expect([3, 0].map((lun) => owned.losses.wasLostBefore(lun))).toEqual([true, false]);
    expect([3, 0].map((lun) => owned.losses.wasWrittenBefore(lun))).toEqual([false, true]);
    const kept = keptIn('served', SERVED.name);
    expect(kept).toMatchObject({ version: 2, ...SUBJECT, socketPath: '/run/one.sock' });
    await owned.end(owned.record, { isLoggedOut: true, wasOpen: true });
  });

  it('a record of serve is forgotten after a reboot, with its losses', async () => {
    put('served', SERVED.name, SERVED.text);
    put('served', SERVED.name.replace('json', 'lost'), SERVED.lost);
    boot.id = 'another';
    const owned = await served();
    expect(owned.record.isid).not.toBe('807bdbde1415');
    expect(owned.losses.isEmpty).toBe(true);
    await owned.end(owned.record, { isLoggedOut: true, wasOpen: true });
  });
});

describe('a login that a daemon of version 1 has kept', () => {
  it('a login of version 1 is restored as it was, with what was handed over', async () => {
    put('logins', LOGIN.name, LOGIN.text);
    const records = new SessionRecords(stateDirectory);
    const { records: found, broken } = await records.load();
    expect(broken).toEqual([]);
    expect(found).toEqual([{ ...JSON.parse(LOGIN.text), version: 2 }]);
    expect(await records.find(SUBJECT)).toEqual(found[0]);
    expect(leftBehind(found[0]!, BOOT)).toMatchObject({ handedOver: true, unflushedLuns: [2] });
    await records.save(found[0]!);
    expect(keptIn('logins', LOGIN.name).version).toBe(2);
  });

  it('a record that attach or a newer version wrote is refused in words', async () => {
    put('logins', ATTACHED.name, ATTACHED.text);
    put('logins', LOGIN.name, LOGIN.text.replace('"version":1', '"version":3'));
    const { records, broken } = await new SessionRecords(stateDirectory).load();
    expect(records).toEqual([]);
    expect(broken.map(({ reason }) => reason)).toEqual([
      expect.stringContaining('persistent'),
      expect.stringContaining('It is of version 3, and this iscsi-nbd reads up to 2'),
    ]);
  });
});
