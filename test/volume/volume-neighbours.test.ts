import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { VolumeError } from '../../src/volume/volume-error.js';
import type { StageRequest } from '../../src/volume/volumes.js';
import { specOf, TARGET, VolumeWorld } from './volume-world.js';

const POD = '/pods/1/volume';

let world: VolumeWorld;
beforeEach(() => {
  world = new VolumeWorld();
  world.addDisk(1);
  world.addDisk(2);
});
afterEach(() => world.dispose());

function staging(volumeId: string, lun: number, more: Partial<StageRequest> = {}): StageRequest {
  return {
    ...{ volumeId, spec: specOf(lun), secrets: {}, stagingPath: `/staging/${volumeId}` },
    ...more,
  };
}

function block(volumeId: string, lun: number): StageRequest {
  return staging(volumeId, lun, { spec: specOf(lun, { fsType: null }), stagingPath: null });
}

function publishing(volumeId: string, targetPath = POD) {
  return { volumeId, targetPath, readOnly: false, isExclusive: false };
}

async function faultOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'none',
    (error: VolumeError) => error.fault,
  );
}

/** Where each device is mounted. */
function places(): Record<string, string> {
  return Object.fromEntries(world.mountTable.map(({ path, source }) => [path, source]));
}

describe('two volumes of a node', () => {
  it("a volume's calls at the paths of another one unmount nothing of it", async () => {
    const volumes = await world.start();
    await volumes.stage(staging('a', 1));
    await volumes.publish(publishing('a'));
    await volumes.stage(staging('b', 2));
    const before = places();
    expect(await faultOf(volumes.publish(publishing('b')))).toBe('refused');
    expect(await faultOf(volumes.publish(publishing('b', '/staging/a')))).toBe('refused');
    expect(await faultOf(volumes.publish(publishing('b', '/staging/b')))).toBe('invalid');
    await volumes.unpublish('b', POD);
    await volumes.unpublish('nobody', POD);
    await volumes.unpublish('b', '/staging/a');
    await volumes.unstage('nobody', '/staging/a');
    expect(places()).toEqual(before);
    await volumes.unstage('b', '/staging/b');
    const atA = staging('b', 2, { stagingPath: '/staging/a' });
    expect(await faultOf(volumes.stage(atA))).toBe('refused');
    await volumes.unstage('b', '/staging/a');
    expect(places()).toEqual({ '/staging/a': world.deviceOf(1), [POD]: world.deviceOf(1) });
    expect(world.phases.sort()).toEqual(['known', 'staged']);
  });

  it('two volumes that are published at one path at the same time: one has it at the end', async () => {
    const volumes = await world.start();
    await volumes.stage(staging('a', 1));
    await volumes.stage(staging('b', 2));
    const ends = await Promise.all(
      ['a', 'b'].map((volumeId) => faultOf(volumes.publish(publishing(volumeId)))),
    );
    const published = ['a', 'b'].filter((_, index) => ends[index] === 'none');
    const sources = published.map((volumeId) => world.deviceOf(volumeId === 'a' ? 1 : 2));
    expect(world.mountTable.filter(({ path }) => path === POD).map(({ source }) => source)).toEqual(
      sources,
    );
  });

  it.each([
    ['mounted twice', staging('a', 1), staging('b', 1)],
    ['mounted and shown as a device', staging('a', 1), block('b', 1)],
    ['shown as a device and mounted', block('a', 1), staging('b', 1)],
    ['shown as a device twice', block('a', 1), block('b', 1)],
  ])('a disk is not %s by two volumes', async (_how, first, second) => {
    const volumes = await world.start();
    await volumes.stage(first);
    await volumes.publish(publishing('a'));
    const before = places();
    expect(await faultOf(volumes.stage(second))).toBe('refused');
    expect(places()).toEqual(before);
    expect(world.phases.sort()).toEqual(['known', 'staged']);
    expect(world.sessions).toHaveLength(1);
  });

  it('a device that another plugin shows to containers is neither mounted nor shown', async () => {
    const volumes = await world.start();
    // A session of the other plugin, and its bind mount of the device's node.
    world.sessions.push({ sessionId: '00000000000000ff', persistent: false, target: TARGET });
    await volumes.stage(block('first', 1));
    const device = world.deviceOf(1);
    world.stored.clear();
    const node = { root: device.replace('/dev', ''), options: ['rw'], type: 'devtmpfs' };
    world.mountTable.push({ ...node, device: '0:5', path: '/swarm/1', source: 'udev' });
    await expect(volumes.stage(staging('v', 1))).rejects.toThrow(/is shown at .swarm.1 as a block/);
    world.mountTable = [];
    const other = { device: '43:0', root: '/', path: '/docker/1', options: [], type: 'ext4' };
    world.mountTable.push({ ...other, source: device });
    expect(await faultOf(volumes.stage(block('v', 1)))).toBe('refused');
  });

  it('two spellings of a target are one: neither logs the other out', async () => {
    const loud = TARGET.toUpperCase().replace('IQN', 'iqn');
    const volumes = await world.start();
    await volumes.stage(staging('a', 1));
    await volumes.stage(staging('b', 2, { spec: specOf(2, { targetName: loud }) }));
    expect(world.record('b')?.ownsSession).toBe(true);
    await volumes.unstage('a', '/staging/a');
    expect(world.sessions).toHaveLength(1);
    // Nor is the disk another one by its operator's word.
    await volumes.unstage('b', '/staging/b');
    world.addDisk(1, { serial: "somebody else's", type: 'ext4', hasData: true }, loud);
    const again = staging('a', 1, { spec: specOf(1, { targetName: loud }) });
    await expect(volumes.stage(again)).rejects.toThrow(/another disk has this LUN now/);
  });
});

describe('a staged volume whose disk is not what it was', () => {
  it('a LUN of a new session that is another disk is neither published nor expanded', async () => {
    const volumes = await world.start();
    await volumes.stage(block('v', 1));
    // A client logs out and in again; the number is given to another disk, and so is the device.
    world.addDisk(1, { serial: "somebody else's", type: 'ext4', hasData: true });
    await expect(volumes.publish(publishing('v'))).rejects.toThrow(/another disk has this LUN now/);
    expect(await faultOf(volumes.expand('v', 1))).toBe('refused');
    expect(world.mountTable).toEqual([]);
  });

  it('a file system is not grown by the name that its device had', async () => {
    const volumes = await world.start();
    await volumes.stage(staging('v', 1));
    const text = world.stored.get('v') ?? '';
    world.stored.set('v', text.replace(`"device":"${world.deviceOf(1)}"`, '"device":"/dev/nbd9"'));
    expect(await faultOf(volumes.expand('v', 1))).toBe('refused');
    expect(world.programs.filter((line) => line.startsWith('resize2fs'))).toEqual([]);
  });

  it('a disk without a name is published in the session in which it was staged', async () => {
    world.addDisk(1, { serial: '' });
    const volumes = await world.start();
    await volumes.stage(block('v', 1));
    expect(await faultOf(volumes.publish(publishing('v')))).toBe('none');
    await volumes.unpublish('v', POD);
    await volumes.unstage('v', null);
    expect(await faultOf(volumes.stage(block('v', 1)))).toBe('refused');
    const spec = specOf(1, { fsType: null, options: { allowUnidentified: 'true' } });
    expect(await faultOf(volumes.stage({ ...block('v', 1), spec }))).toBe('none');
  });

  it('a staging path that is mounted over is not shown to a container', async () => {
    const volumes = await world.start();
    await volumes.stage(staging('v', 1));
    world.hidden.add('/staging/v');
    await expect(volumes.publish(publishing('v'))).rejects.toThrow(/mounted over it/);
    expect(places()).toEqual({ '/staging/v': world.deviceOf(1) });
    expect(world.record('v')?.targets).toEqual([]);
  });

  it('a device node that is gone under its mount is unmounted', async () => {
    const volumes = await world.start();
    await volumes.stage(block('v', 1));
    await volumes.publish(publishing('v'));
    world.mountTable = world.mountTable.map((at) => ({ ...at, root: `${at.root}//deleted` }));
    await volumes.unpublish('v', POD);
    await volumes.unstage('v', null);
    expect(world.mountTable).toEqual([]);
    expect(world.sessions).toEqual([]);
  });
});
