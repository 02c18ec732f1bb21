import { randomBytes } from 'node:crypto';
import { chmod, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Workplace } from '../helpers/command-process.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { build, CLONE, output } from '../packaging/packages.js';

const { version } = JSON.parse(await readFile(`${CLONE}package.json`, 'utf8'));
/** What Debian's cross compiler links to: the C and C++ libraries for arm64. */
const LIBRARIES = '/usr/aarch64-linux-gnu';
const BLOCK = randomBytes(512);

let place: Workplace;
let tgt: Tgt;
let project: string;
let env: NodeJS.ProcessEnv;

/**
 * PATH has npm, a shell, and a Node for arm64 that runs in an emulated processor (qemu-user); no
 * compiler, and no registry can be asked.
 */
beforeAll(async () => {
  place = await Workplace.make();
  await writeFile(place.file('disk'), Buffer.concat([BLOCK, Buffer.alloc((1 << 20) - 512)]));
  tgt = await startTgt({ luns: [{ file: place.file('disk') }], keys: { DataDigest: 'CRC32C' } });
  const results = await build(place, 'npm', 'packages');
  const node = (await output('scripts/package-parts/node', ['arm64'], { cwd: CLONE })).trim();
  project = place.file('project');
  await mkdir(project);
  await mkdir(place.file('bin'));
  const emulated = `exec /usr/bin/qemu-aarch64 -L ${LIBRARIES} ${node}/bin/node "$@"`;
  await writeFile(place.file('bin', 'node'), `#!/bin/sh\n${emulated}\n`);
  await chmod(place.file('bin', 'node'), 0o755);
  for (const command of ['sh', 'env']) await symlink(`/bin/${command}`, place.file('bin', command));
  env = {
    ...{ PATH: place.file('bin'), HOME: place.file('home'), TMPDIR: place.path },
    ...{ npm_config_cache: place.file('cache'), npm_config_offline: 'true' },
    ISCSI_NBD_INITIATOR_NAME: 'iqn.2001-04.com.example:me',
  };
  await writeFile(`${project}/package.json`, '{ "type": "module", "private": true }\n');
  const tgz = results.get(`iscsi-nbd-${version}.tgz`) ?? '';
  await node64(`${NPM}/npm-cli.js`, 'install', '--no-audit', '--no-fund', tgz);
});
afterAll(async () => {
  await tgt?.stop();
  await place?.[Symbol.asyncDispose]();
});

const NPM = resolve(process.execPath, '../../lib/node_modules/npm/bin');
const node64 = (...args: string[]) =>
  output(place.file('bin', 'node'), args, { cwd: project, env });
const command = (...args: string[]) =>
  output(`${project}/node_modules/.bin/iscsi-nbd`, args, { cwd: project, env });

describe('the npm package on an arm64 processor', () => {
  it('an installation there uses the addon that the package brings, without a compiler', async () => {
    expect(await node64('-p', 'process.arch')).toBe('arm64\n');
    const files = await output('find', [`${project}/node_modules`, '-name', '*.node']);
    expect(
      files
        .trim()
        .split('\n')
        .map((path) => path.split('/').slice(-2)[0])
        .sort(),
    ).toEqual(['linux-arm64', 'linux-x64']);
  });

  it('the command of the package passes the demo', async () => {
    expect(await command('--version')).toBe(`${version}\n`);
    expect(await command('demo')).toMatch(/result +passed/);
  });

  it('the command of the package lists the targets of a portal', async () => {
    expect(await command('discover', `127.0.0.1:${tgt.port}`)).toContain(tgt.iqn);
  });

  it('the library of the package reads a block of tgt in six lines', async () => {
    await writeFile(
      `${project}/six-lines.js`,
      `import { openSession } from 'iscsi-nbd';
const session = await openSession(process.argv[2], { dataDigest: ['CRC32C'] });
const { blockSizeBytes } = await session.capacity(1);
const block = await session.read(1, 0, blockSizeBytes);
console.log(block.toString('hex'));
await session.close();
`,
    );
    expect(await node64('six-lines.js', tgt.url(1))).toBe(`${BLOCK.toString('hex')}\n`);
  });

  it('the digests of the addon are those of RFC 7143 A.4 (CRC Examples)', async () => {
    await writeFile(
      `${project}/digests.cjs`,
      `const addon = require('./node_modules/iscsi-nbd/prebuilds/linux-arm64/iscsi_nbd.node');
for (const fill of [0, 0xff]) {
  const digest = Buffer.alloc(4);
  digest.writeInt32LE(addon.crc32cBy(2, Buffer.alloc(32, fill), 0));
  console.log(digest.toString('hex'));
}
`,
    );
    expect(await node64('digests.cjs')).toBe('aa36918a\n43aba862\n');
  });

  it('an installation without the addon for it says what is missing to compile it', async () => {
    await rm(`${project}/node_modules/iscsi-nbd/prebuilds/linux-arm64`, { recursive: true });
    await expect(node64(`${NPM}/npm-cli.js`, 'rebuild', 'iscsi-nbd')).rejects.toThrow(
      /the native addon was not built: .*(apt-get install|there is no C\+\+ compiler)/,
    );
  });
});
