import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deviceIdentifier } from '../../src/lun/device-identifier.js';
import type { DiskFacts } from '../../src/scsi/disk-facts.js';
import { IdentityStore } from '../../src/session/identity-store.js';

let stateDirectory = '';
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
});

afterEach(() => rm(stateDirectory, { recursive: true }));

function open(luns: readonly number[] | null = [1]): Promise<IdentityStore> {
  const key = { initiatorName: 'iqn.2025-01.local:us', targetName: 'iqn.2025-01.local:it', luns };
  return IdentityStore.open({ ...key, stateDirectory });
}

async function records(): Promise<string[]> {
  return (await readdir(join(stateDirectory, 'sessions'))).sort();
}

describe('the identity of an attached session', () => {
  it('the identity is on disk before it is used, for its owner alone', async () => {
    const store = await open();
    const [name = ''] = await records();
    const text = await readFile(join(stateDirectory, 'sessions', name), 'utf8');
    const isid = Buffer.from(store.identity.isid).toString('hex');
    expect(JSON.parse(text)).toMatchObject({ sessionId: store.identity.sessionId, isid });
    expect(store.waiting).toEqual([]);
    await store.release();
    expect(await records()).toEqual([]);
  });

  it('the record has the portal group of its devices, and keeps it if the next one is unknown', async () => {
    const store = await open();
    await store.keep(1, FACTS, 3);
    await store.keep(2, FACTS);
    const [name = ''] = await records();
    const text = await readFile(join(stateDirectory, 'sessions', name), 'utf8');
    expect(JSON.parse(text)).toMatchObject({ portalGroupTag: 3, disks: [{ lun: 1 }, { lun: 2 }] });
    await store.release();
  });

  it('the record has the field of a LUN if that is not the usual one of its number', async () => {
    const store = await open();
    await store.keep(5, FACTS, 3, '4005000000000000');
    await store.keep(6, FACTS, 3);
    const [name = ''] = await records();
    const text = await readFile(join(stateDirectory, 'sessions', name), 'utf8');
    const { disks } = JSON.parse(text) as { disks: { lun: number; field?: string }[] };
    expect(disks.map(({ lun, field }) => [lun, field])).toEqual([
      [5, '4005000000000000'],
      [6, undefined],
    ]);
    await store.release();
  });

  it('the identity belongs to one living process (exit code 15), for each choice of LUNs', async () => {
    const store = await open();
    await expect(open()).rejects.toMatchObject({ code: 'ERR_SESSION_EXISTS', exitCode: 15 });
    await expect(open()).rejects.toThrow(`process ${process.pid} is already attached`);
    const other = await open(null);
    expect(other.identity.sessionId).not.toBe(store.identity.sessionId);
    await store.release();
    await other.release();
    await (await open()).release();
  });

  it('the record has the newest facts of each device before the kernel device is made', async () => {
    const store = await open();
    await Promise.all([store.keep(1, FACTS), store.keep(2, FACTS)]);
    await store.keep(1, { ...FACTS, blockCount: 4096 });
    const [name = ''] = await records();
    const text = await readFile(join(stateDirectory, 'sessions', name), 'utf8');
    const kept = JSON.parse(text) as { disks: { lun: number; facts: DiskFacts }[] };
    const sizes = kept.disks.map((disk) => [disk.lun, disk.facts.blockCount]).sort();
    expect(sizes).toEqual([
      [1, 4096],
      [2, 2048],
    ]);
    await store.release();
  });

  it('the identity is the same after a crash; only configured devices are awaited', async () => {
    const store = await open();
    await store.keep(1, FACTS);
    const [name = ''] = await records();
    const path = join(stateDirectory, 'sessions', name);
    const text = await readFile(path, 'utf8');
    await store.release();
    await writeFile(path, text);
    const again = await open();
    expect(again.identity).toEqual(store.identity);
    expect(again.waiting).toEqual([]);
    await again.release();
  });

  it.each(['', '{', '{"version":2}', '{"version":1,"sessionId":"../x"}'])(
    'a record with the text %j is set aside, not used and not fatal',
    async (text) => {
      const store = await open();
      const [name = ''] = await records();
      await store.release();
      await writeFile(join(stateDirectory, 'sessions', name), text);
      const again = await open();
      expect(again.identity.sessionId).not.toBe(store.identity.sessionId);
      expect(await records()).toEqual([name, `${name}.broken`]);
      await again.release();
    },
  );

  it('the identity is part of the name that the kernel keeps for each device', () => {
    expect(deviceIdentifier('0011223344556677', 3)).toBe('iscsi-nbd:0011223344556677:3');
  });
});

describe('the identity of a session that is served on a socket', () => {
  const key = { initiatorName: 'iqn.2025-01.local:us', targetName: 'iqn.2025-01.local:it' };
  const serve = (socketPath: string) =>
    IdentityStore.open({ ...key, luns: null, socketPath, stateDirectory });
  const isidOf = ({ identity }: IdentityStore) => Buffer.from(identity.isid).toString('hex');

  it('a serve on the same socket has the identity of the process before, until a logout', async () => {
    const first = await serve('/run/one.sock');
    await first.release({ isLoggedOut: false });
    const second = await serve('/run/one.sock');
    expect(isidOf(second)).toBe(isidOf(first));
    expect(second.identity.sessionId).not.toBe(first.identity.sessionId);
    await second.release({ isLoggedOut: true });
    const third = await serve('/run/one.sock');
    expect(isidOf(third)).not.toBe(isidOf(first));
    await third.release();
  });

  it('a serve on another socket, or beside an attached session, has another identity', async () => {
    const stores = [await serve('/run/one.sock'), await serve('/run/two.sock'), await open(null)];
    expect(new Set(stores.map(isidOf)).size).toBe(3);
    for (const store of stores) await store.release();
  });

  const directory = () => join(stateDirectory, 'served');
  const ofAnotherBoot = async (name: string) => {
    const path = join(directory(), name);
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace(/"bootId":"[^"]*"/, '"bootId":"another"'));
  };

  it('the identity and its losses are removed after a reboot', async () => {
    const first = await serve('/run/one.sock');
    first.losses.changed(0, true);
    await first.release();
    const [name = ''] = (await readdir(directory())).filter((each) => each.endsWith('.json'));
    await ofAnotherBoot(name);
    const other = await serve('/run/two.sock');
    expect((await readdir(directory())).length).toBe(1);
    await other.release();
    const second = await serve('/run/one.sock');
    expect(isidOf(second)).not.toBe(isidOf(first));
    await second.release();
  });

  it('the identity of a living process stays, whatever the clock and the record say', async () => {
    const first = await serve('/run/one.sock');
    const [name = ''] = await readdir(directory());
    await utimes(join(directory(), name), 1, 1);
    await (await serve('/run/two.sock')).release();
    expect(await readdir(directory())).toEqual([name]);
    await ofAnotherBoot(name);
    await (await serve('/run/two.sock')).release();
    expect(await readdir(directory())).toEqual([name]);
    await first.release();
  });

  it('a second release has no effect: the record of the next process stays', async () => {
    const first = await serve('/run/one.sock');
    await first.release();
    const second = await serve('/run/one.sock');
    await first.release();
    await expect(serve('/run/one.sock')).rejects.toMatchObject({ exitCode: 15 });
    expect((await readdir(directory())).length).toBe(1);
    await second.release();
  });

  it('the identity stays while a client has no report of a loss', async () => {
    const first = await serve('/run/one.sock');
    first.losses.changed(3, true);
    await first.release({ isLoggedOut: true });
    const second = await serve('/run/one.sock');
    expect(second.identity).toEqual(first.identity);
    expect(second.losses.wasLostBefore(3)).toBe(true);
    second.losses.changed(3, false);
    await second.release();
    expect(await readdir(directory())).toEqual([]);
  });
});
