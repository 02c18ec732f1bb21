import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { Workplace } from '../helpers/command-process.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { build, CLONE, output } from './packages.js';

const { version } = JSON.parse(await readFile(`${CLONE}package.json`, 'utf8'));
const NAME = 'iqn.2001-04.com.example:npm';

let place: Workplace;
let results: ReadonlyMap<string, string>;
let bare: NodeJS.ProcessEnv;
let project: string;

/** PATH has Node, npm and a shell, and neither a compiler nor make; no registry can be asked. */
beforeAll(async () => {
  place = await Workplace.make();
  results = await build(place, 'npm', 'first');
  project = place.file('project');
  await mkdir(place.file('bin'));
  await mkdir(project);
  await symlink(process.execPath, place.file('bin', 'node'));
  for (const command of ['npm', 'npx', 'sh', 'env']) {
    const path = (await output('sh', ['-c', `command -v ${command}`])).trim();
    await symlink(path, place.file('bin', command));
  }
  bare = {
    ...{ PATH: place.file('bin'), HOME: place.file('home'), TMPDIR: place.path },
    ...{ npm_config_cache: place.file('cache'), npm_config_offline: 'true' },
    ISCSI_NBD_INITIATOR_NAME: 'iqn.2001-04.com.example:me',
  };
  await writeFile(`${project}/package.json`, '{ "type": "module", "private": true }\n');
  const tgz = results.get(`iscsi-nbd-${version}.tgz`) ?? '';
  await output(place.file('bin', 'npm'), ['install', '--no-audit', '--no-fund', tgz], {
    ...{ cwd: project, env: bare },
  });
}, 180_000);
afterAll(() => place?.[Symbol.asyncDispose]());

describe('the npm package', { timeout: 180_000 }, () => {
  it('an installation has no other package, and asks no registry and no compiler', async () => {
    const lock = JSON.parse(await readFile(`${project}/package-lock.json`, 'utf8'));
    expect(Object.keys(lock.packages)).toEqual(['', 'node_modules/iscsi-nbd']);
  });

  it('the command of the package shows its version and passes the demo', async () => {
    const run = (...args: string[]) =>
      output(place.file('bin', 'npx'), ['--no', '--', 'iscsi-nbd', ...args], {
        cwd: project,
        env: bare,
      });
    expect((await run('--version')).trim()).toBe(version);
    expect(await run('demo')).toMatch(/result +passed/);
  });

  it('the library of the package reads a block of a target in six lines', async () => {
    const disk = TargetDisk.ram({ sizeBytes: 1 << 20 });
    await using target = await embeddedTarget({ name: NAME, luns: { 0: disk } });
    const block = randomBytes(512);
    const program = `import { openSession } from 'iscsi-nbd';
const session = await openSession(process.argv[2]);
const { blockSizeBytes } = await session.capacity(0);
await session.write(0, 0, Buffer.from(process.argv[3], 'hex'));
process.stdout.write((await session.read(0, 0, blockSizeBytes)).toString('hex'));
await session.close();
`;
    await writeFile(`${project}/six-lines.js`, program);
    const args = ['six-lines.js', target.url, block.toString('hex')];
    expect(await output(process.execPath, args, { cwd: project, env: bare })).toBe(
      block.toString('hex'),
    );
  });

  it('the types of the package need no other package than those of Node', async () => {
    await writeFile(
      `${project}/typed.ts`,
      `import { discover, openSession, type ClientSession } from 'iscsi-nbd';
export const names = (await discover('192.0.2.1')).map(({ name }) => name);
export const session: ClientSession = await openSession('iscsi://192.0.2.1/iqn.a:b', { luns: 1 });
`,
    );
    const flags = [
      '--noEmit',
      '--strict',
      '--skipLibCheck',
      '--target',
      'es2022',
      '--module',
      'nodenext',
    ];
    const types = ['--types', 'node', '--typeRoots', `${CLONE}node_modules/@types`];
    const tsc = `${CLONE}node_modules/typescript/bin/tsc`;
    const said = await new Promise((done) => {
      const args = [tsc, ...flags, ...types, 'typed.ts'];
      execFile(process.execPath, args, { cwd: project }, (_error, out) => done(out));
    });
    // The option of the last line does not exist: so the types are really there.
    expect(said).toMatch(/^typed\.ts\(3,\d+\): error TS\d+: .*'luns'/);
    expect(
      String(said)
        .trim()
        .split('\n')
        .filter((line) => line.includes('error')),
    ).toHaveLength(1);
  });

  it('an installation whose addon does not load compiles one, and the demo passes with it', async () => {
    const folder = `${project}/node_modules/iscsi-nbd`;
    const brought = `${folder}/prebuilds/linux-${process.arch}/iscsi_nbd.node`;
    await writeFile(brought, 'of another processor');
    const env = { ...bare, PATH: process.env['PATH'] };
    await output(place.file('bin', 'npm'), ['rebuild', 'iscsi-nbd'], { cwd: project, env });
    const built = await readFile(`${folder}/build/Release/iscsi_nbd.node`);
    expect(built.subarray(0, 4)).toEqual(Buffer.from('\x7fELF'));
    const args = [`${folder}/dist/boot/main.mjs`, 'demo'];
    expect(await output(process.execPath, args, { env: bare })).toMatch(/result +passed/);
  });

  it('two builds of one commit are the same bytes', async () => {
    const again = await build(place, 'npm', 'second');
    expect([...again.keys()]).toEqual([...results.keys()]);
    for (const [name, path] of again) {
      expect((await readFile(path)).equals(await readFile(results.get(name) ?? '')), name).toBe(
        true,
      );
    }
  });
});
