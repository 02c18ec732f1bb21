import { mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import { deviceIdentifier } from '../../src/lun/device-identifier.js';
import type { DiskFacts } from '../../src/scsi/disk-facts.js';
import { OwnedRecord, type OwnedRecordEnd } from '../../src/supervisor/owned-record.js';
import { withDisk } from '../../src/supervisor/record-identity.js';
import type { SessionRecord } from '../../src/supervisor/session-record.js';
import { SessionRecords } from '../../src/supervisor/session-records.js';

const kernel = vi.hoisted(() => ({ devices: [] as string[] }));
vi.mock('../../src/io/nbd-sysfs.js', async (original) => ({
  ...(await original<object>()),
  listConfigured: async () => kernel.devices.map((identifier, index) => ({ index, identifier })),
}));

let stateDirectory = '';
let warnings: string[] = [];
const SUBJECT = {
  initiatorName: 'iqn.2025-01.local:us',
  targetName: 'iqn.2025-01.local:it',
  sessionType: 'data',
  portal: { host: '192.0.2.1', port: 3260 },
} as const;
const FACTS = {
  vendor: 'IET',
  product: 'VIRTUAL-DISK',
  serial: 'beaf11',
  identifiers: ['naa.60000000000000000e00000000010001'],
  deviceType: 0,
  blockSizeBytes: 512,
  blockCount: 2048,
  readOnly: false,
  writeCacheEnabled: true,
  thin: { unmap: false },
  limits: { maxTransferBlocks: 0xffffffff },
} as unknown as DiskFacts;

beforeEach(async () => {
  stateDirectory = await mkdtemp(join(tmpdir(), 'identity-'));
  [kernel.devices, warnings] = [[], []];
});

afterEach(() => rm(stateDirectory, { recursive: true }));

/** Whether commands of a process before it may be at the target. */
const ghosts = async () => {
  const owned = await open();
  const { mayHaveGhosts } = owned;
  await end(owned, { isLoggedOut: false });
  return mayHaveGhosts;
};

function open(luns: number[] | null = [1]): Promise<OwnedRecord> {
  const onWarning = (message: string) => warnings.push(message);
  return OwnedRecord.open({ ...SUBJECT, luns }, { stateDirectory, onWarning });
}

async function written(): Promise<SessionRecord> {
  const [name = ''] = await records();
  return JSON.parse(await readFile(join(stateDirectory, 'sessions', name), 'utf8'));
}

/** Leaves the record as a process does that is killed; the lock ends with it. */
async function crashed(record: SessionRecord): Promise<SessionRecord> {
  await new SessionRecords(stateDirectory, 'sessions').save(record);
  return record;
}

/** The session ends in order, unless it is said otherwise. */
function end(owned: OwnedRecord, how: Partial<OwnedRecordEnd> = {}): Promise<void> {
  return owned.end(owned.record, { isLoggedOut: true, wasOpen: true, ...how });
}

async function records(): Promise<string[]> {
  return (await readdir(join(stateDirectory, 'sessions'))).sort();
}

describe('the identity of an attached session', () => {
  it('an identity is on disk before it is used, readable by its owner alone', async () => {
    const owned = await open();
    const isid = Buffer.from(owned.identity.isid).toString('hex');
    expect(await written()).toMatchObject({ sessionId: owned.identity.sessionId, isid });
    expect(owned.record.disks).toEqual([]);
    const [name = ''] = await records();
    expect((await stat(join(stateDirectory, 'sessions', name))).mode & 0o777).toBe(0o600);
    await end(owned);
    expect(await records()).toEqual([]);
  });

  it('a record has the portal group of its devices, and keeps it while the next one is not known', async () => {
    const owned = await open();
    const first = withDisk(owned.record, { lun: 1, facts: FACTS }, 3);
    await owned.save(withDisk(first, { lun: 2, facts: FACTS }, undefined));
    expect(await written()).toMatchObject({ portalGroupTag: 3, disks: [{ lun: 1 }, { lun: 2 }] });
    await end(owned);
  });

  it('a record has the field of a LUN if that is not the usual one of its number', async () => {
    const owned = await open();
    const disk = { lun: 5, facts: FACTS, field: '4005000000000000' };
    await owned.save(withDisk(withDisk(owned.record, disk, 3), { lun: 6, facts: FACTS }, 3));
    const { disks } = await written();
    expect(disks.map(({ lun, field }) => [lun, field])).toEqual([
      [5, '4005000000000000'],
      [6, undefined],
    ]);
    await end(owned);
  });

  it('one living process at a time has the record of a choice of LUNs (exit code 15)', async () => {
    const owned = await open();
    await expect(open()).rejects.toMatchObject({ code: 'ERR_SESSION_EXISTS', exitCode: 15 });
    await expect(open()).rejects.toThrow(
      `process ${process.pid} is already attached to these LUNs of ${SUBJECT.targetName} ` +
        `as session ${owned.record.sessionId}`,
    );
    const other = await open(null);
    expect(other.identity.sessionId).not.toBe(owned.identity.sessionId);
    await end(owned);
    await end(other);
    await end(await open());
  });

  it('another process that finds the record broken does not touch it', async () => {
    const owned = await open();
    const [name = ''] = await records();
    await writeFile(join(stateDirectory, 'sessions', name), '{');
    await expect(open()).rejects.toMatchObject({ exitCode: 15 });
    expect(await records()).toEqual([name]);
    await end(owned);
  });

  it('the record has the newest facts of each device before the kernel gets them', async () => {
    const owned = await open();
    const one = withDisk(owned.record, { lun: 1, facts: FACTS }, 1);
    const two = withDisk(one, { lun: 2, facts: FACTS }, 1);
    const newest = withDisk(two, { lun: 1, facts: { ...FACTS, blockCount: 4096 } }, 1);
    await Promise.all([owned.save(one), owned.save(two), owned.save(newest)]);
    const sizes = (await written()).disks.map((disk) => [disk.lun, disk.facts.blockCount]).sort();
    expect(sizes).toEqual([
      [1, 4096],
      [2, 2048],
    ]);
    await end(owned);
  });

  it('the identity is the same after a crash, and only devices that exist are waited for', async () => {
    const owned = await open();
    const one = withDisk(owned.record, { lun: 1, facts: FACTS }, 3);
    const both = withDisk(one, { lun: 2, facts: FACTS }, 3);
    await end(owned);
    for (const luns of [[], [2]]) {
      const before = await crashed(both);
      kernel.devices = luns.map((lun) => deviceIdentifier(before.sessionId, lun));
      const again = await open();
      expect(again.identity.sessionId).toBe(before.sessionId);
      expect(again.record.disks.map(({ lun }) => lun)).toEqual(luns);
      expect(again.record.portalGroupTag).toBe(luns.length === 0 ? undefined : 3);
      kernel.devices = [];
      await end(again);
    }
  });

  it('the record keeps what the process before has handed over until the devices are used here', async () => {
    const owned = await open();
    const left = { ...withDisk(owned.record, { lun: 1, facts: FACTS }, 3), handedOver: true };
    await end(owned);
    await crashed(left);
    kernel.devices = [deviceIdentifier(left.sessionId, 1)];
    const unused = await open();
    expect((await written()).handedOver).toBe(undefined);
    await end(unused, { isLoggedOut: false, wasOpen: false });
    expect(await written()).toMatchObject({ sessionId: left.sessionId, handedOver: true });
    const used = await open();
    await end(used, { isLoggedOut: false });
    expect((await written()).handedOver).toBe(undefined);
  });

  it('the ISID is kept for another session while the target has seen no logout', async () => {
    const first = await open();
    await end(first, { isLoggedOut: false });
    const second = await open();
    expect(second.record.isid).toBe(first.record.isid);
    expect(second.record.sessionId).not.toBe(first.record.sessionId);
    await end(second);
  });

  it('the identity of a boot session is always the same, even if the target has seen no logout', async () => {
    const boot = () =>
      OwnedRecord.open({ ...SUBJECT, sessionType: 'boot', luns: [1] }, { stateDirectory });
    const first = await boot();
    await end(first, { isLoggedOut: false });
    const second = await boot();
    await end(second);
    const third = await boot();
    expect([second.identity, third.identity]).toEqual([first.identity, first.identity]);
    await end(third);
  });

  it('a session that cannot be made leaves no record, unless there was one before', async () => {
    const fails = () => {
      throw new UsageError('no such option');
    };
    const first = await open();
    await expect(first.makeSession(fails)).rejects.toThrow('no such option');
    expect(await records()).toEqual([]);
    await end(await open(), { isLoggedOut: false });
    const second = await open();
    await expect(second.makeSession(fails)).rejects.toThrow('no such option');
    expect((await written()).isid).toBe(second.record.isid);
  });

  it.each(['', '{', '{"version":2}', '{"version":9}', '{"version":1,"sessionId":"../x"}'])(
    'a record that says %j is set aside, not used and not fatal',
    async (text) => {
      const owned = await open();
      const [name = ''] = await records();
      await end(owned);
      await writeFile(join(stateDirectory, 'sessions', name), text);
      const again = await open();
      expect(again.identity.sessionId).not.toBe(owned.identity.sessionId);
      expect(await records()).toEqual([name, `${name}.broken`]);
      expect(warnings).toEqual([expect.stringContaining(`is broken and is now `)]);
      await end(again);
    },
  );

  it('the session ID is in the name that the kernel keeps for each device', () => {
    expect(deviceIdentifier('0011223344556677', 3)).toBe('iscsi-nbd:0011223344556677:3');
  });
});

describe('the identity of a session that is served on a socket', () => {
  const serve = (socketPath: string) =>
    OwnedRecord.open({ ...SUBJECT, socketPath }, { stateDirectory });
  const isidOf = ({ record }: OwnedRecord) => record.isid;

  it('the ISID is that of the process before on the same socket while the target has seen no logout', async () => {
    const first = await serve('/run/one.sock');
    await end(first, { isLoggedOut: false });
    const second = await serve('/run/one.sock');
    expect(isidOf(second)).toBe(isidOf(first));
    expect(second.identity.sessionId).not.toBe(first.identity.sessionId);
    await end(second, { isLoggedOut: true });
    const third = await serve('/run/one.sock');
    expect(isidOf(third)).not.toBe(isidOf(first));
    await end(third);
  });

  it('the identity is another one on another socket, and beside an attached session', async () => {
    const stores = [await serve('/run/one.sock'), await serve('/run/two.sock'), await open(null)];
    expect(new Set(stores.map(isidOf)).size).toBe(3);
    for (const store of stores) await end(store);
  });

  const directory = () => join(stateDirectory, 'served');
  const ofAnotherBoot = async (name: string) => {
    const path = join(directory(), name);
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace(/"bootId":"[^"]*"/, '"bootId":"another"'));
  };

  it('the identity and the losses are forgotten after a reboot', async () => {
    const first = await serve('/run/one.sock');
    first.losses.changed(0, true);
    await end(first);
    const [name = ''] = (await readdir(directory())).filter((each) => each.endsWith('.json'));
    await ofAnotherBoot(name);
    const other = await serve('/run/two.sock');
    expect((await readdir(directory())).length).toBe(1);
    await end(other);
    const second = await serve('/run/one.sock');
    expect(isidOf(second)).not.toBe(isidOf(first));
    await end(second);
  });

  it('a record belongs to its living process, whatever the clock and the record say', async () => {
    const first = await serve('/run/one.sock');
    const [name = ''] = await readdir(directory());
    await utimes(join(directory(), name), 1, 1);
    await end(await serve('/run/two.sock'));
    expect(await readdir(directory())).toEqual([name]);
    await ofAnotherBoot(name);
    await end(await serve('/run/two.sock'));
    expect(await readdir(directory())).toEqual([name]);
    await end(first);
  });

  it('a record is released once: what the next process has written stays', async () => {
    const first = await serve('/run/one.sock');
    await end(first);
    const second = await serve('/run/one.sock');
    await end(first);
    await expect(serve('/run/one.sock')).rejects.toMatchObject({ exitCode: 15 });
    expect((await readdir(directory())).length).toBe(1);
    await end(second);
  });

  it('the identity stays while a loss has not been reported to clients', async () => {
    const first = await serve('/run/one.sock');
    first.losses.changed(3, true);
    await end(first, { isLoggedOut: true });
    const second = await serve('/run/one.sock');
    expect(second.identity).toEqual(first.identity);
    expect(second.losses.wasLostBefore(3)).toBe(true);
    second.losses.changed(3, false);
    await end(second);
    expect(await readdir(directory())).toEqual([]);
  });
});

it('a process before this one may have left commands though its record is broken', async () => {
  expect(await ghosts()).toBe(false);
  expect(await ghosts()).toBe(true);
  const [name = ''] = await records();
  await writeFile(join(stateDirectory, 'sessions', name), '{');
  expect(await ghosts()).toBe(true);
});
