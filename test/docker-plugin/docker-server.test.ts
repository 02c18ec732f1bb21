import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { serveDocker } from '../../src/docker-plugin/docker-server.js';
import { DockerVolumes } from '../../src/docker-plugin/docker-volumes.js';
import { TARGET, VolumeWorld } from '../volume/volume-world.js';

let world: VolumeWorld;
let folder: string;
let socketPath: string;
let server: { close(): Promise<void> } | null = null;
const failures: unknown[] = [];

beforeEach(async () => {
  world = new VolumeWorld();
  world.addDisk(0);
  folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-docker-'));
  socketPath = join(folder, 'plugin.sock');
  failures.length = 0;
  await startPlugin();
});
afterEach(async () => {
  await server?.close();
  world.dispose();
  rmSync(folder, { recursive: true, force: true });
});

/** A new process of the plugin with what the one before left. */
async function startPlugin(): Promise<void> {
  await server?.close();
  const volumes = new DockerVolumes({
    volumes: await world.start(),
    folder,
    bootId: world.bootId,
    now: () => new Date('2026-01-02T03:04:05Z'),
  });
  server = await serveDocker({ path: socketPath }, volumes, (error) => failures.push(error));
}

type Answer = { readonly status: number; readonly body: Readonly<Record<string, unknown>> };

function post(path: string, body: unknown = '', method = 'POST'): Promise<Answer> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path, method, agent: false }, (response) => {
      let received = '';
      response.on('data', (chunk) => {
        received += chunk;
      });
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, body: JSON.parse(received) });
      });
    });
    sent.on('error', reject);
    sent.end(text);
  });
}

const OPTIONS = { url: `iscsi://192.0.2.1/${TARGET}/0`, 'removal-latency': '300' };

async function create(name = 'data', Opts: unknown = OPTIONS): Promise<Answer> {
  return post('/VolumeDriver.Create', { Name: name, Opts });
}

async function mount(ID: string, Name = 'data'): Promise<Answer> {
  return post('/VolumeDriver.Mount', { Name, ID });
}

async function unmount(ID: string, Name = 'data'): Promise<Answer> {
  return post('/VolumeDriver.Unmount', { Name, ID });
}

describe('the volume plugin of Docker', () => {
  it('the plugin says what it is, and its socket is for root', async () => {
    expect(await post('/Plugin.Activate')).toEqual({
      status: 200,
      body: { Implements: ['VolumeDriver'], Err: '' },
    });
    const { body } = await post('/VolumeDriver.Capabilities', '{}');
    expect(body).toEqual({ Capabilities: { Scope: 'local' }, Err: '' });
    expect(statSync(socketPath).mode & 0o777).toBe(0o600);
  });

  it('two containers share a volume, and the last one ends its session', async () => {
    expect(await create()).toEqual({ status: 200, body: { Err: '' } });
    expect(world.sessions).toEqual([]);
    const first = await mount('a');
    expect(first.status).toBe(200);
    expect(await mount('b')).toEqual(first);
    expect(world.mountTable.map(({ path }) => path)).toEqual([first.body['Mountpoint']]);
    expect(world.logins[0]?.options).toEqual({ removalLatencySeconds: '300' });
    const path = await post('/VolumeDriver.Path', { Name: 'data' });
    expect(path.body['Mountpoint']).toBe(first.body['Mountpoint']);
    expect((await post('/VolumeDriver.Remove', { Name: 'data' })).status).toBe(500);
    await unmount('a');
    expect(world.mountTable).toHaveLength(1);
    await unmount('b');
    expect(world.mountTable).toEqual([]);
    expect(world.sessions).toEqual([]);
    expect((await post('/VolumeDriver.Remove', { Name: 'data' })).status).toBe(200);
    expect((await post('/VolumeDriver.List')).body['Volumes']).toEqual([]);
    expect(world.stored.size).toBe(0);
  });

  it('a container that starts twice at once, or ends twice, is one user', async () => {
    await create();
    await Promise.all([mount('a'), mount('a'), mount('b'), mount('c')]);
    await Promise.all([unmount('a'), unmount('a'), unmount('b')]);
    expect(world.mountTable).toHaveLength(1);
    await unmount('c');
    expect(world.sessions).toEqual([]);
  });

  it('a volume has 1024 containers at most, and one more changes nothing', async () => {
    await create();
    await mount('a');
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' });
    const [name = ''] = files.filter((each) => each.endsWith('.json'));
    const record = JSON.parse(readFileSync(join(folder, name), 'utf8'));
    const users = Array.from({ length: 1024 }, (_none, at) => `container-${at}`);
    writeFileSync(join(folder, name), JSON.stringify({ ...record, users }));
    const refused = await mount('one more');
    expect(refused).toMatchObject({
      status: 500,
      body: { Err: expect.stringContaining('has 1024 containers') },
    });
    expect((await mount('container-7')).status).toBe(200);
    expect((await post('/VolumeDriver.List')).body['Volumes']).toHaveLength(1);
  });

  it('a volume is listed with its condition and with the time of its creation', async () => {
    await create();
    const unused = { Name: 'data', Mountpoint: '', CreatedAt: '2026-01-02T03:04:05.000Z' };
    const { body } = await post('/VolumeDriver.Get', { Name: 'data' });
    expect(body['Volume']).toMatchObject({ ...unused, Status: { target: TARGET, lun: '0' } });
    await mount('a');
    world.disks.set(`${TARGET}/0`, { ...world.addDisk(0), lunState: 'away' });
    const list = await post('/VolumeDriver.List');
    expect(JSON.stringify(list.body['Volumes'])).toMatch(/away; its requests wait/);
  });

  it('a volume stays mounted when the plugin is killed, and its users stay known', async () => {
    await create();
    const { body } = await mount('a');
    await startPlugin();
    expect(await mount('b')).toMatchObject({ body: { Mountpoint: body['Mountpoint'] } });
    await startPlugin();
    await unmount('a');
    expect(world.mountTable).toHaveLength(1);
    await unmount('b');
    expect(world.sessions).toEqual([]);
  });

  it('a volume is mounted again after a reboot, and has no users of before', async () => {
    await create();
    await mount('a');
    world.reboot();
    await startPlugin();
    expect((await post('/VolumeDriver.Path', { Name: 'data' })).body['Mountpoint']).toBe('');
    expect((await mount('z')).status).toBe(200);
    await unmount('z');
    expect(world.sessions).toEqual([]);
    expect((await post('/VolumeDriver.Remove', { Name: 'data' })).status).toBe(200);
  });

  it('a mount that fails says why and leaves nothing', async () => {
    await create('data', { ...OPTIONS, url: `iscsi://192.0.2.1/${TARGET}/9` });
    const { status, body } = await mount('a');
    expect(status).toBe(500);
    expect(body['Err']).toMatch(/There is no LUN 9/);
    expect(world.sessions).toEqual([]);
    expect((await post('/VolumeDriver.Remove', { Name: 'data' })).status).toBe(200);
  });

  it('the same volume may be created twice, but not in another way', async () => {
    await create();
    expect((await create()).status).toBe(200);
    const other = await create('data', { ...OPTIONS, fstype: 'xfs' });
    expect(other).toMatchObject({ status: 500, body: { Err: /with other options/ } });
  });

  it.each([
    ['no options', null, /names no disk/],
    ['an unknown option', { ...OPTIONS, 'removal-latncy': '1' }, /did you mean removal-latency/],
    ['a URL without LUN', { url: `iscsi://192.0.2.1/${TARGET}` }, /url names no LUN/],
    ['a password', { url: `iscsi://u%p@192.0.2.1/${TARGET}/0` }, /password in url/],
    ['two ways to say it', { ...OPTIONS, lun: '1' }, /specify the same/],
    ['a target name that is none', { portal: '192.0.2.1', target: 'disk1' }, /not an iSCSI name/],
    ['a file system we do not make', { ...OPTIONS, fstype: 'ntfs' }, /fstype is one of ext2/],
    ['a mount option with a blank', { ...OPTIONS, 'mount-options': 'a b' }, /mount option/],
    ['an option that is no text', { lun: 1 }, /malformed/],
  ])('a volume with %s is refused at its creation', async (_what, options, words) => {
    const { status, body } = await create('data', options);
    expect(status).toBe(500);
    expect(body['Err']).toMatch(words);
    expect((await post('/VolumeDriver.List')).body['Volumes']).toEqual([]);
  });

  it('a volume by portal, target and LUN is the same as by its URL', async () => {
    const portals = '192.0.2.2,192.0.2.3:3261';
    const options = { portal: '192.0.2.1', portals, target: TARGET, lun: '0', fsck: 'never' };
    await create('data', { ...options, 'chap-user': 'u', 'chap-secret-file': '/etc/secret' });
    await mount('a');
    expect(world.logins[0]).toEqual({
      targetName: TARGET,
      portal: '192.0.2.1:3260',
      options: {
        portals: ['192.0.2.2:3260', '192.0.2.3:3261'],
        chapUser: 'u',
        chapSecretFile: '/etc/secret',
      },
    });
  });

  it.each([
    ['/VolumeDriver.Get', { Name: 'none' }, 500],
    ['/VolumeDriver.Mount', { Name: 'none', ID: 'a' }, 500],
    ['/VolumeDriver.Mount', { Name: 'data' }, 500],
    ['/VolumeDriver.Create', { Name: '../x', Opts: OPTIONS }, 500],
    ['/VolumeDriver.Create', '{"Name":', 500],
    ['/VolumeDriver.Create', 'x'.repeat(2 << 20), 500],
    ['/VolumeDriver.Nothing', {}, 404],
  ])('%s with %o is answered with its fault', async (path, body, status) => {
    const answer = await post(path, body);
    expect(answer.status).toBe(status);
    expect(String(answer.body['Err'])).toMatch(/\w+/);
    expect(failures).toEqual([]);
  });
});
