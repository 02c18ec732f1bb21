import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Workplace } from '../helpers/command-process.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { build, CLONE, output } from '../packaging/packages.js';
import { BareSystem } from './bare-system.js';

const { version } = JSON.parse(await readFile(`${CLONE}package.json`, 'utf8'));
const NAME = `iscsi-nbd-${version}-amd64.oci`;
/** A process with no capability and no way to get one. */
const UNPRIVILEGED = 'setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --';

let place: Workplace;
let tgt: Tgt;
let results: ReadonlyMap<string, string>;
let layout: string;
let system: BareSystem;

const blob = (digest: string) => `${layout}/blobs/${digest.replace(':', '/')}`;
const json = async (path: string) => JSON.parse(await readFile(path, 'utf8'));
const sha256 = async (path: string) =>
  `sha256:${createHash('sha256')
    .update(await readFile(path))
    .digest('hex')}`;

beforeAll(async () => {
  place = await Workplace.make();
  tgt = await startTgt({ luns: [{ sizeBytes: 1 << 20 }] });
  results = await build(place, 'image', 'first');
  layout = place.file('layout');
  const files = place.file('image');
  await mkdir(layout);
  await mkdir(files);
  await output('tar', ['-C', layout, '-xf', results.get(`${NAME}.tar`) ?? '']);
  const { manifests } = await json(`${layout}/index.json`);
  const { layers } = await json(blob(manifests[0].digest));
  await output('tar', ['-C', files, '--numeric-owner', '-xf', blob(layers[0].digest)]);
  system = await BareSystem.start(files, place, layout);
});
afterAll(async () => {
  await system?.[Symbol.asyncDispose]();
  await tgt?.stop();
  await place?.[Symbol.asyncDispose]();
});

describe('the OCI image', () => {
  it('every blob has the digest and the size that refer to it, and the layer that of the config', async () => {
    const { manifests } = await json(`${layout}/index.json`);
    const manifest = await json(blob(manifests[0].digest));
    const named = [...manifests, manifest.config, ...manifest.layers];
    for (const { digest, size } of named) {
      expect(await sha256(blob(digest))).toBe(digest);
      expect((await readFile(blob(digest))).length).toBe(size);
    }
    expect(await readdir(`${layout}/blobs/sha256`)).toHaveLength(named.length);
    const config = await json(blob(manifest.config.digest));
    expect(config).toMatchObject({
      ...{ architecture: 'amd64', os: 'linux' },
      config: { Entrypoint: ['/usr/bin/iscsi-nbd'], Cmd: ['daemon'] },
    });
    expect(config.rootfs.diff_ids).toEqual([manifest.layers[0].digest]);
  });

  it('the command passes the demo and serves a LUN of tgt without root and without a capability', async () => {
    expect(await system.run(`${UNPRIVILEGED} iscsi-nbd --version`)).toBe(`${version}\n`);
    expect(await system.run(`${UNPRIVILEGED} iscsi-nbd demo`)).toMatch(/result +passed/);
    const served = `iscsi-nbd serve ${tgt.url(1)} --socket /tmp/nbd --run 'echo "at $uri"'`;
    const name = 'ISCSI_NBD_INITIATOR_NAME=iqn.2001-04.com.example:me';
    expect(await system.run(`${name} ${UNPRIVILEGED} ${served}`)).toMatch(/^at nbd\+unix:/m);
  });

  it('what makes, checks, grows and mounts a file system is in it', async () => {
    await system.run('command -v mkfs.ext4 e2fsck resize2fs blkid mount umount');
  });

  it('the list of what is in it names Node and the packages of Debian', async () => {
    const { components } = await json(results.get(`${NAME}.cdx.json`) ?? '');
    const names = components.map((each: { name: string }) => each.name);
    expect(names).toEqual(expect.arrayContaining(['node', 'yaml', 'e2fsprogs', 'libc6:amd64']));
  });

  it('two builds of one commit are the same bytes', async () => {
    const again = await build(place, 'image', 'second');
    for (const [name, path] of again) {
      expect(await sha256(path), name).toBe(await sha256(results.get(name) ?? ''));
    }
  });
});
