import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { type Answer, BAD_FIELDS, blockOf, mountOf } from '../csi/csi-client.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { cleanUp, configuredDevices, run, shell } from './attached.js';
import { mountsBelow, RETAINED } from './front-end.js';
import { MortalPlugin } from './mortal-plugin.js';
import { MIB, sessionsOf } from './targets.js';

const CHAP = { user: 'user', password: 'a-secret-of-12' };
const SECRETS = {
  'node.session.auth.username': CHAP.user,
  'node.session.auth.password': CHAP.password,
};

afterEach(() => cleanUp());

type Calls = Readonly<Record<'stage' | 'publish' | 'unpublish' | 'unstage' | 'place', Answer>>;

const METHODS = {
  stage: 'Node.NodeStageVolume',
  publish: 'Node.NodePublishVolume',
  expand: 'Node.NodeExpandVolume',
  unpublish: 'Node.NodeUnpublishVolume',
  unstage: 'Node.NodeUnstageVolume',
} as const;

/** A tgt with CHAP, a daemon, and a plugin that can be killed. */
class Node {
  readonly tgt: Tgt;
  readonly daemon: DaemonProcess;
  readonly plugin: MortalPlugin;

  private constructor(tgt: Tgt, daemon: DaemonProcess) {
    this.tgt = tgt;
    this.daemon = daemon;
    this.plugin = new MortalPlugin(daemon);
  }

  static async start(): Promise<Node> {
    const daemon = new DaemonProcess({ devices: true, retained: RETAINED });
    const file = fileOf(daemon);
    await run('truncate', '-s', String(32 * MIB), file);
    const node = new Node(await startTgt({ luns: [{ file }], chap: CHAP }), daemon);
    await node.daemon.start();
    await node.plugin.start();
    return node;
  }

  get file(): string {
    return fileOf(this.daemon);
  }

  get podPath(): string {
    return join(this.daemon.folder, 'pod');
  }

  calls(volume_capability: Answer): Calls {
    const { tgt } = this;
    const staging_target_path = join(this.daemon.folder, 'staging');
    const target_path = this.podPath;
    const context = { targetPortal: `127.0.0.1:${tgt.port}`, iqn: tgt.iqn, lun: '1' };
    const volume_context = { ...context, sessionCHAPAuth: 'true' };
    const staged = { volume_id: 'v', staging_target_path };
    return {
      stage: { ...staged, volume_capability, volume_context, secrets: SECRETS },
      publish: { ...staged, target_path, volume_capability },
      unpublish: { volume_id: 'v', target_path },
      unstage: staged,
      place: { volume_id: 'v', volume_path: target_path },
    };
  }

  codeOf(method: keyof typeof METHODS, request: Answer): Promise<string> {
    return this.plugin.client.codeOf(METHODS[method], request);
  }

  async expectNothingLeft(where = ''): Promise<void> {
    const { folder } = this.daemon;
    const { records } = await this.plugin.records.all();
    expect(
      records.map(({ phase }) => phase).filter((phase) => phase !== 'known'),
      where,
    ).toEqual([]);
    expect(mountsBelow(folder), where).toEqual([]);
    expect(existsSync(this.podPath), where).toBe(false);
    expect(await configuredDevices(), where).toEqual([]);
    expect(await sessionsOf(this.tgt), where).toBe(0);
    const { secretsFolder } = this.plugin;
    expect(existsSync(secretsFolder) ? readdirSync(secretsFolder) : [], where).toEqual([]);
  }

  /** Each effect of a call is its last one once; then the call is repeated, and undone. */
  async killInEach(
    method: keyof typeof METHODS,
    request: Answer,
    undo: () => Promise<unknown>,
  ): Promise<number> {
    for (let step = 1; ; step += 1) {
      if (!(await this.plugin.dies(step, METHODS[method], request))) return step - 1;
      const where = `${method}, killed after ${this.plugin.effects.join(' ')}`;
      await this.plugin.start();
      if (method === 'stage') await this.expectWholeOrNothing(where);
      for (const _each of ['after the kill', 'again']) {
        expect(await this.codeOf(method, request), where).toBe('OK');
      }
      await undo();
    }
  }

  /** The next start undoes a stage that was interrupted, unless all of it was done. */
  async expectWholeOrNothing(where: string): Promise<void> {
    const isWhole = (await this.plugin.records.find('v'))?.phase === 'staged';
    if (isWhole) expect(await sessionsOf(this.tgt), where).toBe(1);
    else await this.expectNothingLeft(where);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.plugin.stop();
    await this.daemon[Symbol.asyncDispose]();
    await this.tgt.stop();
  }
}

describe('calls of CSI with real mounts', () => {
  it.each([
    ['with a file system', mountOf(), 22],
    ['that is a block device', blockOf(), 15],
  ])('a volume %s survives a kill after each step of each call', async (_kind, mode, stepsMin) => {
    await using node = await Node.start();
    const { stage, publish, unpublish, unstage, place } = node.calls(mode);
    const done = (method: keyof typeof METHODS, request: Answer) => async () => {
      expect(await node.codeOf(method, request)).toBe('OK');
    };
    let steps = await node.killInEach('stage', stage, done('unstage', unstage));
    steps += await node.killInEach('publish', publish, done('unpublish', unpublish));
    steps += await node.killInEach('expand', place, async () => undefined);
    steps += await node.killInEach('unpublish', unpublish, done('publish', publish));
    steps += await node.killInEach('unstage', unstage, done('stage', stage));
    expect(steps).toBeGreaterThanOrEqual(stepsMin);
    await node.expectNothingLeft();
  });

  it('wrong orders, bad fields and calls at the same time have their codes and leave nothing', async () => {
    await using node = await Node.start();
    const { client } = node.plugin;
    const { stage, publish, unpublish, unstage, place } = node.calls(mountOf(6));
    const template = { ...stage, ...publish, ...place };
    for (const [method, field, value] of BAD_FIELDS) {
      const code = await client.codeOf(`Node.${method}`, { ...template, [field]: value });
      expect(code, `${method} ${field} ${JSON.stringify(value)}`).toBe('INVALID_ARGUMENT');
    }
    expect(await node.codeOf('publish', publish)).toBe('NOT_FOUND');
    expect(await node.codeOf('expand', place)).toBe('NOT_FOUND');
    expect(await client.codeOf('Node.NodeGetVolumeStats', place)).toBe('NOT_FOUND');
    expect(await node.codeOf('unpublish', unpublish)).toBe('OK');
    expect(await node.codeOf('unstage', unstage)).toBe('OK');
    const wrong = { ...SECRETS, 'node.session.auth.password': 'another-secret' };
    expect(await node.codeOf('stage', { ...stage, secrets: wrong })).toBe('UNAUTHENTICATED');
    expect(await node.codeOf('stage', { ...stage, secrets: {} })).toBe('INVALID_ARGUMENT');
    const absent = { ...(stage['volume_context'] as Answer), lun: '9' };
    expect(await node.codeOf('stage', { ...stage, volume_context: absent })).toBe('NOT_FOUND');
    await node.expectNothingLeft('before the volume is staged');
    const both = () => Promise.all([node.codeOf('stage', stage), node.codeOf('stage', stage)]);
    expect((await both()).sort()).toEqual(['ABORTED', 'OK']);
    const publishing = [node.codeOf('publish', publish), node.codeOf('unstage', unstage)];
    expect(await Promise.all(publishing)).toEqual(['OK', 'ABORTED']);
    expect(await node.codeOf('unstage', unstage)).toBe('FAILED_PRECONDITION');
    const second = { ...publish, target_path: `${node.podPath}2` };
    expect(await node.codeOf('publish', second)).toBe('FAILED_PRECONDITION');
    expect(await node.codeOf('publish', { ...publish, readonly: true })).toBe('ALREADY_EXISTS');
    const elsewhere = { ...stage, staging_target_path: join(node.daemon.folder, 'other') };
    expect(await node.codeOf('stage', elsewhere)).toBe('ALREADY_EXISTS');
    const leaving = [node.codeOf('unpublish', unpublish), node.codeOf('unpublish', unpublish)];
    expect((await Promise.all(leaving)).sort()).toEqual(['ABORTED', 'OK']);
    expect(await node.codeOf('unstage', unstage)).toBe('OK');
    expect(await node.codeOf('publish', publish)).toBe('FAILED_PRECONDITION');
    await node.expectNothingLeft('at the end');
  });
});

describe('what a pod gets', () => {
  it('mount flags, a read-only pod, a larger disk and an absent target arrive in the pod', async () => {
    await using node = await Node.start();
    const { client } = node.plugin;
    const mount = { fs_type: 'ext4', mount_flags: ['noatime', 'nodev'] };
    const calls = node.calls({ mount, access_mode: { mode: 1 } });
    await client.call(METHODS.stage, calls.stage);
    await client.call(METHODS.publish, calls.publish);
    const reader = `${node.podPath}-reader`;
    await client.call(METHODS.publish, { ...calls.publish, target_path: reader, readonly: true });
    expect(optionsOf(node.podPath)).toEqual(expect.arrayContaining(['rw', 'noatime', 'nodev']));
    expect(optionsOf(reader)).toEqual(expect.arrayContaining(['ro', 'noatime', 'nodev']));
    await shell(`echo told >${node.podPath}/file; sync ${node.podPath}/file`);
    expect(readFileSync(join(reader, 'file'), 'utf8')).toBe('told\n');
    await expect(shell(`echo more >>${reader}/file`)).rejects.toThrow(/Read-only file system/);
    const statsOf = async () => {
      const { usage, volume_condition } = await client.call('Node.NodeGetVolumeStats', calls.place);
      const [bytes] = usage as { total: string }[];
      const { abnormal, message } = volume_condition as { abnormal: boolean; message: string };
      return { total: Number(bytes?.total), abnormal, message };
    };
    const before = await statsOf();
    expect(before).toMatchObject({ abnormal: false });
    await node.tgt.kill();
    await node.daemon.until(async () => (await statsOf()).abnormal);
    expect((await statsOf()).message).toMatch(/is away; its requests wait for [\d.]+ s more/);
    await run('truncate', '-s', String(48 * MIB), node.file);
    await node.tgt.restart();
    await node.daemon.until(async () => !(await statsOf()).abnormal);
    const larger = { ...calls.place, capacity_range: { required_bytes: 48 * MIB } };
    const answer = await client.call(METHODS.expand, larger);
    expect(Number(answer['capacity_bytes'])).toBe(48 * MIB);
    expect((await statsOf()).total).toBeGreaterThan(before.total + 12 * MIB);
    expect(readFileSync(join(node.podPath, 'file'), 'utf8')).toBe('told\n');
    await client.call(METHODS.unpublish, { ...calls.unpublish, target_path: reader });
    await client.call(METHODS.unpublish, calls.unpublish);
    await client.call(METHODS.unstage, calls.unstage);
    await node.expectNothingLeft();
  });

  it('a block device is one in the pod, whose bytes are those of the LUN', async () => {
    await using node = await Node.start();
    const { client } = node.plugin;
    const calls = node.calls(blockOf());
    await client.call(METHODS.stage, calls.stage);
    await client.call(METHODS.publish, calls.publish);
    expect(statSync(node.podPath).isBlockDevice()).toBe(true);
    execFileSync('dd', ['if=/dev/zero', `of=${node.podPath}`, 'bs=4k', 'count=1', 'conv=fsync']);
    await shell(`printf told | dd of=${node.podPath} conv=fsync,notrunc status=none`);
    expect(readFileSync(node.file).subarray(0, 4).toString()).toBe('told');
    const { usage } = await client.call('Node.NodeGetVolumeStats', calls.place);
    expect(usage).toMatchObject([{ total: String(32 * MIB) }]);
    await client.call(METHODS.unpublish, calls.unpublish);
    await client.call(METHODS.unstage, calls.unstage);
    // The data on it are not a file system: nothing is made over them.
    const asFolder = node.calls(mountOf());
    expect(await node.codeOf('stage', asFolder.stage)).toBe('FAILED_PRECONDITION');
    await node.expectNothingLeft();
  });
});

/** What the target keeps the disk in. */
function fileOf({ folder }: DaemonProcess): string {
  return join(folder, 'disk.img');
}

/** Of the mount at a path itself. */
function optionsOf(path: string): string[] {
  const line = mountsBelow(path).find((each) => each.split(' ')[4] === path);
  return line?.split(' ')[5]?.split(',') ?? [];
}
