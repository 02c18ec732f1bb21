import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SessionRecords } from '../../src/supervisor/session-records.js';
import { Workplace } from '../helpers/command-process.js';
import { build, CLONE, output } from './packages.js';

const { version } = JSON.parse(await readFile(`${CLONE}package.json`, 'utf8'));
const MAIN = `iscsi-nbd_${version}_amd64`;
const BOOT = `iscsi-nbd-boot_${version}_all`;

let place: Workplace;
let results: ReadonlyMap<string, string>;

beforeAll(async () => {
  place = await Workplace.make();
  results = await build(place, 'deb', 'first');
  for (const name of [MAIN, BOOT]) {
    const path = results.get(`${name}.deb`) ?? '';
    await output('dpkg-deb', ['--raw-extract', path, place.file(name)]);
  }
}, 180_000);
afterAll(() => place?.[Symbol.asyncDispose]());

/** Mode and path of each file of a package; manuals by the names that they have uncompressed. */
async function filesOf(name: string): Promise<string[]> {
  const find = ['-type', 'f', '!', '-path', './DEBIAN/*', '-printf', '%m /%P\n'];
  const found = await output('find', ['.', ...find], { cwd: place.file(name) });
  return found.trim().split('\n').sort();
}

async function rowsOf(name: string): Promise<string[]> {
  const script = '. scripts/lib/lib.sh; . scripts/lib/installed-files.sh; file_rows "$0"';
  const rows = await output('bash', ['-c', script, name], { cwd: CLONE });
  return rows
    .trim()
    .split('\n')
    .map((row) => row.replace(/ [^ ]+$/, '').replace(/ \/usr\/share\/man\/.*/, '$&.gz'));
}

describe('the Debian packages', { timeout: 180_000 }, () => {
  it('each package has the files of packaging/files.list, and what is made for it', async () => {
    const made = [
      '755 /usr/bin/iscsi-nbd',
      '755 /usr/lib/iscsi-nbd/node',
      '644 /usr/share/bash-completion/completions/iscsi-nbd',
      '644 /usr/share/zsh/vendor-completions/_iscsi-nbd',
      '644 /usr/share/doc/iscsi-nbd/changelog.gz',
      '644 /usr/share/doc/iscsi-nbd/copyright',
      '644 /usr/share/doc/iscsi-nbd/third-party-licences.gz',
      '644 /usr/share/lintian/overrides/iscsi-nbd',
    ];
    expect(await filesOf(MAIN)).toEqual([...made, ...(await rowsOf('iscsi-nbd'))].sort());
    const madeForBoot = [
      '644 /usr/share/doc/iscsi-nbd-boot/changelog.gz',
      '644 /usr/share/doc/iscsi-nbd-boot/copyright',
    ];
    expect(await filesOf(BOOT)).toEqual(
      [...madeForBoot, ...(await rowsOf('iscsi-nbd-boot'))].sort(),
    );
    expect(await readFile(place.file(MAIN, 'DEBIAN/conffiles'), 'utf8')).toBe(
      '/etc/iscsi-nbd/config.yaml\n',
    );
  });

  it('the program runs with the Node of the package, and passes the demo', async () => {
    const library = place.file(MAIN, 'usr/lib/iscsi-nbd');
    const env = {
      ...{ PATH: '/usr/bin:/bin', HOME: place.path, TMPDIR: place.path },
      ISCSI_NBD_INITIATOR_NAME: 'iqn.2001-04.com.example:me',
    };
    const run = (...args: string[]) =>
      output(`${library}/node`, [`${library}/dist/boot/main.mjs`, ...args], { env });
    expect((await run('--version')).trim()).toBe(version);
    expect(await run('demo')).toMatch(/result +passed/);
  });

  it('a clone at another path finds the Node of the package in the cache', async () => {
    const clone = place.file('another clone');
    await mkdir(`${clone}/packaging`, { recursive: true });
    for (const folder of ['scripts', 'packaging/node']) {
      await cp(`${CLONE}${folder}`, `${clone}/${folder}`, { recursive: true });
    }
    expect(await output(`${clone}/scripts/package-parts/node`, [])).toBe(
      await output('scripts/package-parts/node', [], { cwd: CLONE }),
    );
  });

  it('the list of what is in it names Node, every module, and their licences', async () => {
    const list = JSON.parse(await readFile(results.get(`${MAIN}.cdx.json`) ?? '', 'utf8'));
    // Whatever the folder of the clone is called: it has to be the same bytes anywhere.
    expect(list.metadata.component.name).toBe('iscsi-nbd');
    const names = list.components.map(({ name }: { name: string }) => name);
    const { dependencies } = JSON.parse(await readFile(`${CLONE}package.json`, 'utf8'));
    expect(names).toEqual(expect.arrayContaining(['node', ...Object.keys(dependencies)]));
    for (const { name, licenses } of list.components) expect(licenses, name).not.toEqual([]);
  });

  it('a version that cannot read the records of sessions refuses to be installed', async () => {
    const state = place.file('var/lib/iscsi-nbd');
    await new SessionRecords(state).save({
      ...{ version: 2, sessionId: '0123456789abcdef', isid: '800000000001', persistent: true },
      ...{ active: false, bootId: 'x', initiatorName: 'iqn.a:i', targetName: 'iqn.a:t' },
      ...{ sessionType: 'data', portal: { host: '192.0.2.1', port: 3260 }, options: {}, disks: [] },
    });
    const preinst = () =>
      output(place.file(MAIN, 'DEBIAN/preinst'), ['upgrade', '9.9.9'], {
        env: { ...process.env, DPKG_ROOT: place.path },
      });
    await preinst();
    const [record = ''] = (await output('ls', [`${state}/logins`])).split('\n');
    const path = `${state}/logins/${record}`;
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace('"version":2', '"version":3'));
    await expect(preinst()).rejects.toThrow(
      /cannot read the sessions .*\n.*version 3 of the record format;\n.* reads up to 2\./,
    );
  });

  it('two builds of one commit are the same bytes', async () => {
    await mkdir(place.file('second'));
    const again = await build(place, 'deb', 'second');
    expect([...again.keys()]).toEqual([...results.keys()]);
    for (const [name, path] of again) {
      expect((await readFile(path)).equals(await readFile(results.get(name) ?? '')), name).toBe(
        true,
      );
    }
  });
});
