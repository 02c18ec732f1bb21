import { mkdirSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { startTgt } from '../helpers/tgt.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { cleanUp, configuredDevices, shell } from './attached.js';
import { FrontEnd, mountsBelow, RETAINED } from './front-end.js';
import { MIB, sessionsOf } from './targets.js';

type Answer = Readonly<Record<string, unknown>>;

afterEach(() => cleanUp());

describe('volumes of Docker on tgt', () => {
  it('two containers share a volume of Docker, whose data are there the next time', async () => {
    await using tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
    await using daemon = new DaemonProcess({ devices: true, retained: RETAINED });
    await daemon.start();
    const socketPath = join(daemon.folder, 'docker.sock');
    await using plugin = new FrontEnd(daemon, 'docker-plugin', '--socket', socketPath);
    await plugin.start();
    const post = (path: string, body: unknown) => postTo(socketPath, path, body);
    const url = `iscsi://127.0.0.1:${tgt.port}/${tgt.iqn}/1`;
    await post('/VolumeDriver.Create', { Name: 'data', Opts: { url } });
    const { Mountpoint } = await post('/VolumeDriver.Mount', { Name: 'data', ID: 'a' });
    mkdirSync(join(String(Mountpoint), 'kept'));
    await plugin.kill();
    await plugin.start();
    expect(await post('/VolumeDriver.Mount', { Name: 'data', ID: 'b' })).toEqual({
      ...{ Mountpoint, Err: '' },
    });
    await post('/VolumeDriver.Unmount', { Name: 'data', ID: 'a' });
    expect(mountsBelow(daemon.folder)).toHaveLength(1);
    await post('/VolumeDriver.Unmount', { Name: 'data', ID: 'b' });
    expect(mountsBelow(daemon.folder)).toEqual([]);
    expect(await configuredDevices()).toEqual([]);
    await post('/VolumeDriver.Mount', { Name: 'data', ID: 'c' });
    expect(await shell(`ls ${Mountpoint}`)).toMatch(/kept/);
    await post('/VolumeDriver.Unmount', { Name: 'data', ID: 'c' });
    expect(await post('/VolumeDriver.Remove', { Name: 'data' })).toEqual({ Err: '' });
    expect(await sessionsOf(tgt)).toBe(0);
  });
});

function postTo(socketPath: string, path: string, body: unknown): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path, method: 'POST', agent: false }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve(JSON.parse(text)));
    });
    sent.on('error', reject);
    sent.end(JSON.stringify(body));
  });
}
