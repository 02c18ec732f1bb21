import { cp, readFile, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Workplace } from '../helpers/command-process.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { build, CLONE } from '../packaging/packages.js';
import { BareSystem } from './bare-system.js';

const { version } = JSON.parse(await readFile(`${CLONE}package.json`, 'utf8'));

let place: Workplace;
let tgt: Tgt;
let system: BareSystem;

/** A Debian that has Node and npm besides, as their own release puts them below /usr/local. */
beforeAll(async () => {
  place = await Workplace.make();
  tgt = await startTgt({ luns: [{ sizeBytes: 1 << 20 }] });
  const results = await build(place, 'npm', 'packages');
  const packages = dirname(results.get(`iscsi-nbd-${version}.tgz`) ?? '');
  const node = resolve(process.execPath, '../..');
  await cp(process.execPath, `${packages}/node`);
  await cp(`${node}/lib/node_modules/npm`, `${packages}/npm`, { recursive: true });
  await writeFile(
    `${packages}/six-lines.js`,
    `import { openSession } from 'iscsi-nbd';
const session = await openSession(process.argv[2]);
const { blockSizeBytes } = await session.capacity(1);
const block = await session.read(1, 0, blockSizeBytes);
console.log(block.length, block.every((byte) => byte === 0));
await session.close();
`,
  );
  system = await BareSystem.ofSuite('bookworm', place, packages);
  await system.run(`
    cp /packages/node /usr/local/bin/
    mkdir -p /usr/local/lib/node_modules
    cp -r /packages/npm /usr/local/lib/node_modules/
    ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
    ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
    mkdir /project
    echo '{ "type": "module", "private": true }' >/project/package.json
    cp /packages/six-lines.js /project/`);
});
afterAll(async () => {
  await system?.[Symbol.asyncDispose]();
  await tgt?.stop();
  await place?.[Symbol.asyncDispose]();
});

describe('the npm package in a system without compiler and network', () => {
  it('npm installs it there', async () => {
    await system.run(`
      for tool in cc c++ gcc g++ clang make cmake python3; do
        ! command -v $tool || exit 1
      done
      cd /project
      unshare --net npm install --no-audit --no-fund /packages/iscsi-nbd-${version}.tgz`);
    expect(await system.run('ls /project/node_modules')).toBe('iscsi-nbd\n');
  });

  it('the command of the package passes the demo', async () => {
    const run = 'cd /project && npx --no -- iscsi-nbd';
    expect(await system.run(`${run} --version`)).toBe(`${version}\n`);
    expect(await system.run(`${run} demo`)).toMatch(/result +passed/);
  });

  it('the library of the package reads a block of tgt in six lines', async () => {
    const program = 'cd /project && node six-lines.js';
    const name = 'ISCSI_NBD_INITIATOR_NAME=iqn.2001-04.com.example:me';
    expect(await system.run(`export ${name}; ${program} ${tgt.url(1)}`)).toBe('512 true\n');
  });

  it('an installation without the addon says what is missing to compile it, and how to get it', async () => {
    const rebuilt = `
      cd /project
      rm node_modules/iscsi-nbd/prebuilds/*/iscsi_nbd.node
      npm rebuild iscsi-nbd`;
    await expect(system.run(rebuilt)).rejects.toThrow(
      /the native addon was not built: .*apt-get install (g\+\+|libuv1-dev)/,
    );
  });
});
