import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { VolumeError } from '../../src/volume/volume-error.js';
import type { StageRequest, Volumes } from '../../src/volume/volumes.js';
import { Killed, specOf, TARGET, VolumeWorld } from './volume-world.js';

const SECRETS = { chapUser: 'user', chapSecret: 'a secret of CHAP' };
const POD = '/pods/1/volume';
const NOTHING = { mounts: [], sessions: [], secrets: [], targets: [], staged: [] };

let world: VolumeWorld;
beforeEach(() => {
  world = new VolumeWorld();
});
afterEach(() => world.dispose());

function staging(volumeId: string, lun: number, isBlock = false): StageRequest {
  return {
    volumeId,
    spec: specOf(lun, isBlock ? { fsType: null } : {}),
    secrets: SECRETS,
    stagingPath: isBlock ? null : `/staging/${volumeId}`,
  };
}

function publishing(volumeId: string, targetPath = POD, readOnly = false) {
  return { volumeId, targetPath, readOnly, isExclusive: false };
}

async function faultOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'none',
    (error: VolumeError) => error.fault,
  );
}

type Operation = { readonly name: string; readonly run: (volumes: Volumes) => Promise<unknown> };

/** The life of a volume, in order. */
function life(isBlock: boolean): readonly Operation[] {
  const request = staging('v', 1, isBlock);
  return [
    { name: 'stage', run: (volumes) => volumes.stage(request) },
    { name: 'publish', run: (volumes) => volumes.publish(publishing('v', POD, !isBlock)) },
    { name: 'expand', run: (volumes) => volumes.expand('v', 1) },
    { name: 'unpublish', run: (volumes) => volumes.unpublish('v', POD) },
    { name: 'unstage', run: (volumes) => volumes.unstage('v', request.stagingPath) },
  ];
}

/** The state of the node; the calls that led to it do not matter. */
function state() {
  const record = world.record('v');
  return {
    left: world.leftovers(),
    mounts: world.mountTable,
    record: { ...record, bootId: '' },
    disk: world.disks.get(`${TARGET}/1`),
  };
}

const KINDS = [
  ['with a file system', false],
  ['that is a block device', true],
] as const;

describe('volumes of a node', () => {
  it.each(KINDS)('a volume %s is staged, published, and leaves nothing', async (_kind, isBlock) => {
    world.addDisk(1);
    const volumes = await world.start();
    for (const { run } of life(isBlock)) {
      await run(volumes);
      const before = state();
      await run(volumes);
      expect(state()).toEqual(before);
    }
    expect(world.leftovers()).toEqual(NOTHING);
    expect(world.programs.filter((line) => line.startsWith('mkfs'))).toHaveLength(isBlock ? 0 : 1);
  });

  it.each(KINDS)(
    'a volume %s survives a kill after each step of each call',
    async (_kind, isBlock) => {
      const operations = life(isBlock);
      let kills = 0;
      for (const [index, operation] of operations.entries()) {
        for (let killAt = 1; ; killAt += 1) {
          world.dispose();
          world = new VolumeWorld();
          world.addDisk(1);
          const first = await world.start();
          for (const { run } of operations.slice(0, index)) await run(first);
          const untouched = await world.start();
          world.killAt = killAt;
          const end = await operation.run(untouched).then(
            () => 'done',
            (error: unknown) => (error instanceof Killed ? 'killed' : String(error)),
          );
          if (end === 'done') break;
          expect(end, `${operation.name}, step ${killAt}`).toBe('killed');
          kills += 1;
          const again = await world.start();
          await operation.run(again);
          const after = state();
          await operation.run(again);
          expect(state(), `${operation.name}, step ${killAt}`).toEqual(after);
          for (const { run } of operations.slice(index + 1)) await run(again);
          expect(world.leftovers(), `${operation.name}, step ${killAt}`).toEqual(NOTHING);
        }
      }
      expect(kills).toBeGreaterThan(30);
    },
  );

  it('a volume leaves nothing if a killed stage is followed by unstage, or by nothing', async () => {
    for (let killAt = 1; ; killAt += 1) {
      world.dispose();
      world = new VolumeWorld();
      world.addDisk(1);
      const first = await world.start();
      world.killAt = killAt;
      const end = await faultOf(first.stage(staging('v', 1)));
      if (end === 'none') break;
      const again = await world.start();
      // After the last step it is staged, and the caller has no answer.
      if (world.phases.includes('staged')) break;
      expect(world.leftovers(), `the start after step ${killAt}`).toEqual(NOTHING);
      await again.unstage('v', '/staging/v');
      expect(world.leftovers(), `step ${killAt}`).toEqual(NOTHING);
    }
  });

  it('a volume is refused in the wrong order, and nothing is left', async () => {
    world.addDisk(1);
    const volumes = await world.start();
    await volumes.unpublish('v', POD);
    await volumes.unstage('v', '/staging/v');
    expect(await faultOf(volumes.publish(publishing('v')))).toBe('notFound');
    expect(await faultOf(volumes.expand('v', 1))).toBe('notFound');
    expect(await faultOf(volumes.report('v', POD))).toBe('notFound');
    await volumes.stage(staging('v', 1));
    await volumes.publish(publishing('v'));
    expect(await faultOf(volumes.unstage('v', '/staging/v'))).toBe('refused');
    expect(await faultOf(volumes.publish(publishing('v', POD, true)))).toBe('exists');
    expect(await faultOf(volumes.stage({ ...staging('v', 1), spec: specOf(2) }))).toBe('exists');
    const elsewhere = { ...staging('v', 1), stagingPath: '/staging/other' };
    expect(await faultOf(volumes.stage(elsewhere))).toBe('exists');
    const second = { ...publishing('v', '/pods/2/volume'), isExclusive: true };
    expect(await faultOf(volumes.publish(second))).toBe('refused');
    await volumes.unpublish('v', POD);
    await volumes.unstage('v', '/staging/v');
    expect(await faultOf(volumes.publish(publishing('v')))).toBe('refused');
    expect(world.leftovers()).toEqual(NOTHING);
  });

  it('a volume has one operation at a time: another one gets an error that it is busy', async () => {
    world.addDisk(1);
    world.addDisk(2);
    const volumes = await world.start();
    let goOn = () => {};
    world.pause = new Promise((resolve) => {
      goOn = resolve;
    });
    const first = volumes.stage(staging('v', 1));
    const calls = life(false).map(({ run }) => faultOf(run(volumes)));
    expect(await Promise.all(calls)).toEqual(['busy', 'busy', 'busy', 'busy', 'busy']);
    world.pause = null;
    goOn();
    await first;
    await volumes.unstage('v', '/staging/v');
    expect(world.leftovers()).toEqual(NOTHING);
  });

  it('a volume of a LUN number that was given to another disk is never handed out (CVE-2023-2088)', async () => {
    world.addDisk(1, { serial: 'mine' });
    const volumes = await world.start();
    await volumes.stage(staging('v', 1));
    await volumes.publish(publishing('v'));
    // The node is away; the target gives the number to the disk of another owner.
    world.reboot();
    world.addDisk(1, { serial: "somebody else's", type: 'ext4', hasData: true });
    const after = await world.start();
    const stage = after.stage(staging('v', 1));
    await expect(stage).rejects.toThrow(/serial number was "mine" and is "somebody else's" now/);
    expect(await faultOf(after.publish(publishing('v')))).toBe('refused');
    expect(world.leftovers()).toEqual({ ...NOTHING, targets: [POD] });
    await after.unpublish('v', POD);
    // Neither after it was unstaged in good order, nor as a block device.
    await after.unstage('v', '/staging/v');
    expect(await faultOf(after.stage(staging('v', 1, true)))).toBe('refused');
    expect(world.leftovers()).toEqual(NOTHING);
    expect(world.programs.filter((line) => /^(mkfs|e2fsck)/.test(line))).toHaveLength(1);
    // The disk comes back under its number.
    world.addDisk(1, { serial: 'mine', type: 'ext4', hasData: true });
    await after.stage(staging('v', 1));
  });

  it('a volume that names its disk is staged on no other one, even if it was never staged', async () => {
    world.addDisk(1, { serial: 'other' });
    const volumes = await world.start();
    const spec = specOf(1, { diskId: 'mine' });
    await expect(volumes.stage({ ...staging('v', 1), spec })).rejects.toThrow(
      /is not the disk mine/,
    );
    expect(world.leftovers()).toEqual(NOTHING);
    world.addDisk(1, { serial: 'MINE' });
    await volumes.stage({ ...staging('v', 1), spec });
  });

  it('a volume shares the session of its target, and the last one logs it out', async () => {
    world.addDisk(1);
    world.addDisk(2);
    const volumes = await world.start();
    await Promise.all([volumes.stage(staging('a', 1)), volumes.stage(staging('b', 2))]);
    expect(world.sessions).toHaveLength(1);
    await volumes.unstage('a', '/staging/a');
    expect(world.sessions).toHaveLength(1);
    await volumes.unstage('b', '/staging/b');
    expect(world.leftovers()).toEqual(NOTHING);
  });

  it('a volume leaves a session that was there before it, and a persistent one', async () => {
    world.addDisk(1);
    world.sessions.push({ sessionId: '00000000000000ff', persistent: true, target: TARGET });
    const volumes = await world.start();
    await volumes.stage(staging('v', 1));
    await volumes.unstage('v', '/staging/v');
    expect(world.sessions).toHaveLength(1);
  });

  it('a volume that cannot be staged leaves nothing, whatever fails', async () => {
    world.addDisk(1, { hasData: true });
    world.addDisk(2, { lunState: 'away' });
    world.addDisk(4, { type: 'xfs', hasData: true });
    world.addDisk(5, { readOnly: true });
    const volumes = await world.start();
    expect(await faultOf(volumes.stage(staging('data', 1)))).toBe('refused');
    expect(await faultOf(volumes.stage(staging('away', 2)))).toBe('unavailable');
    expect(await faultOf(volumes.stage(staging('absent', 3)))).toBe('notFound');
    expect(await faultOf(volumes.stage(staging('other', 4)))).toBe('refused');
    expect(await faultOf(volumes.stage(staging('blank', 5)))).toBe('refused');
    world.failing = { 'mkfs.ext4': { status: 1, stdout: '', stderr: 'no space' } };
    world.addDisk(6);
    await expect(volumes.stage(staging('mkfs', 6))).rejects.toThrow(/mkfs.ext4 .* no space/);
    world.isDaemonUp = false;
    expect(await faultOf(volumes.stage(staging('daemon', 6)))).toBe('unavailable');
    world.isDaemonUp = true;
    expect(world.leftovers()).toEqual(NOTHING);
  });

  it('a volume of a read-only LUN is mounted read-only and not repaired', async () => {
    world.addDisk(1, { readOnly: true, type: 'ext4', hasData: true });
    const volumes = await world.start();
    await volumes.stage(staging('v', 1));
    expect(world.mountTable[0]?.options).toEqual(['ro']);
    expect(world.programs.filter((line) => line.startsWith('e2fsck'))).toEqual([]);
  });

  it('a volume is a mount that systemd ends before the network and the daemon', async () => {
    world.addDisk(1);
    const volumes = await world.start();
    await volumes.stage({ ...staging('v', 1), spec: specOf(1, { mountOptions: ['noatime'] }) });
    const mounts = world.programs.filter((line) => line.startsWith('mount'));
    expect(mounts).toEqual(['mount -t ext4 -o _netdev,noatime /dev/nbd0 /staging/v']);
  });

  it('a volume has its secrets in files of mode 0600 only, while its session is there', async () => {
    world.addDisk(1);
    const volumes = await world.start();
    await volumes.stage(staging('v', 1));
    const [name = ''] = readdirSync(world.secretsFolder);
    const path = join(world.secretsFolder, name);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readFileSync(path, 'utf8')).toBe(SECRETS.chapSecret);
    const elsewhere = JSON.stringify([...world.stored.values(), world.programs, world.logins]);
    expect(elsewhere).not.toContain(SECRETS.chapSecret);
    expect(world.logins[0]?.options).toEqual({ chapUser: 'user', chapSecretFile: path });
    await volumes.unstage('v', '/staging/v');
    expect(readdirSync(world.secretsFolder)).toEqual([]);
  });

  it('a volume reports its sizes, and that its disk is away or removed', async () => {
    const disk = world.addDisk(1);
    const volumes = await world.start();
    await volumes.stage(staging('v', 1));
    await volumes.publish(publishing('v'));
    expect(await volumes.report('v', POD)).toMatchObject({
      fileSystem: { totalInodes: 1000 },
      condition: { isAbnormal: false },
    });
    disk.lunState = 'away';
    expect((await volumes.report('v', POD)).condition.message).toMatch(
      /is away; its requests wait/,
    );
    disk.lunState = 'removed';
    expect((await volumes.report('v', POD)).condition.isAbnormal).toBe(true);
    world.isDaemonUp = false;
    expect((await volumes.report('v', POD)).condition.message).toMatch(/No daemon listens/);
  });

  it('a volume grows with its disk, and is refused a size that the disk does not have', async () => {
    const disk = world.addDisk(1);
    const volumes = await world.start();
    await volumes.stage(staging('v', 1));
    expect(await faultOf(volumes.expand('v', disk.sizeBytes + 1))).toBe('outOfRange');
    disk.sizeBytes *= 2;
    expect(await volumes.expand('v', disk.sizeBytes)).toBe(disk.sizeBytes);
    expect(world.programs.at(-1)).toBe(`resize2fs ${world.deviceOf(1)}`);
  });

  it('a volume whose target path has a mount of something else is not published over it', async () => {
    world.addDisk(1);
    const other = { device: '8:1', root: '/', path: POD, options: [], type: 'ext4' };
    world.mountTable.push({ ...other, source: '/dev/sda1' });
    const volumes = await world.start();
    await volumes.stage(staging('v', 1));
    expect(await faultOf(volumes.publish(publishing('v')))).toBe('refused');
    expect(await faultOf(volumes.unpublish('v', POD))).toBe('refused');
    expect(world.mountTable.map(({ path }) => path)).toContain(POD);
  });
});
