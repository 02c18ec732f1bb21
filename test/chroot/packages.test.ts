import { cp, symlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Workplace } from '../helpers/command-process.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { buildVersions, CLONE, changedPackage, MAIN_FILE } from '../packaging/packages.js';
import { BareSystem } from './bare-system.js';
import { SteadyLoad } from './steady-load.js';

/** scripts/test-parts/packages says which. */
const SUITES = (process.env['SUITES'] ?? 'bookworm trixie').split(' ');
/** What a system has, without what the package manager and the kernel write. */
const EVERYTHING = `find / -xdev \\( -path /var/lib/dpkg -o -path /var/cache -o -path /var/log \\
  -o -path /var/lib/apt -o -path /packages -o -path /tmp -o -path '/etc/*-' \\
  -o -path /etc/.pwd.lock \\) -prune -o -print | sort`;

let place: Workplace;
let tgt: Tgt;
let packages: string;

beforeAll(async () => {
  place = await Workplace.make();
  packages = place.file('packages');
  await buildVersions(packages, ['1.0.0', '1.0.1']);
  await changedPackage(
    { packages, from: '1.0.0', to: '1.1.0', place },
    { [MAIN_FILE]: () => 'throw new Error("this one does not load");\n' },
  );
  await changedPackage(
    { packages, from: '1.0.0', to: '1.2.0', place },
    {
      [MAIN_FILE]: (program) =>
        program.replace(
          '\n',
          "\nif (process.argv[2] === 'daemon') throw new Error('no daemon');\n",
        ),
    },
  );
  await cp(`${CLONE}test/chroot/systemctl`, `${packages}/systemctl`);
  tgt = await startTgt({ luns: [{ sizeBytes: 16 << 20 }] });
});
afterAll(async () => {
  await tgt?.stop();
  await place?.[Symbol.asyncDispose]();
});

describe.each(SUITES)('Debian %s', (suite) => {
  let system: BareSystem;
  let before: string;
  let session: string;

  const apt = (what: string) =>
    system.run(`apt-get -o Dpkg::Use-Pty=0 -y --allow-downgrades ${what}`);
  const installed = () =>
    system.run(`dpkg-query -W -f '\${db:Status-Abbrev} \${Version}' iscsi-nbd`);
  const upgrade = (version: string) => apt(`install /packages/iscsi-nbd_${version}_amd64.deb`);
  const identity = () =>
    system.run(`iscsi-nbd sessions --json | grep -o '"UniqueSessionId": *"[0-9a-f]*"'`);
  const programs = () => system.run('cat /run/daemon.pid; cat /usr/lib/iscsi-nbd/package.json');

  beforeAll(async () => {
    system = await BareSystem.ofSuite(suite, place, packages);
    before = await system.run(EVERYTHING);
  });
  afterAll(() => system?.[Symbol.asyncDispose]());

  it('a system without systemd installs both packages; demo and serve work', async () => {
    await apt('install /packages/iscsi-nbd_1.0.0_amd64.deb /packages/iscsi-nbd-boot_1.0.0_all.deb');
    expect(await system.run('iscsi-nbd --version')).toBe('1.0.0\n');
    expect(await system.run('iscsi-nbd demo')).toMatch(/result +passed/);
    const served = `iscsi-nbd serve ${tgt.url(1)} --socket /tmp/nbd --run 'echo "at $uri"'`;
    expect(await system.run(served)).toMatch(/^at nbd\+unix:/m);
  });

  it('the hook of initramfs-tools finds all that the initramfs has to hold', async () => {
    await system.run(`
      export DESTDIR=/tmp/initramfs CONFDIR=/etc/initramfs-tools MODULES=list verbose=n
      export MODULESDIR=/lib/modules/none version=none __MODULES_TO_ADD=/tmp/modules
      echo ISCSI_NBD_BOOT=yes >/etc/initramfs-tools/conf.d/iscsi-nbd
      mkdir -p $DESTDIR
      sh /usr/share/initramfs-tools/hooks/iscsi-nbd
      cd $DESTDIR/usr/lib/iscsi-nbd && ls run-capsule boot-functions capsule/bin/@iscsi-nbd
      chroot capsule /bin/@iscsi-nbd /app/dist/boot/main.mjs --version
      rm -rf $DESTDIR /tmp/modules /etc/initramfs-tools/conf.d/iscsi-nbd`);
  });

  it('a purge leaves what an administrator made, and nothing else', async () => {
    await system.run('echo secret >/etc/iscsi-nbd/chap-secret');
    await apt('purge iscsi-nbd iscsi-nbd-boot');
    const left = new Set((await system.run(EVERYTHING)).split('\n'));
    for (const path of before.split('\n')) left.delete(path);
    expect([...left]).toEqual(['/etc/iscsi-nbd', '/etc/iscsi-nbd/chap-secret']);
    expect(await system.run('getent group iscsi-nbd || echo none')).toBe('none\n');
  });

  it('an installation starts the service if the system has one', async () => {
    await system.run(`
      cp /packages/systemctl /usr/sbin/systemctl
      mkdir -p /run/systemd/system`);
    await upgrade('1.0.0');
    const portal = tgt.url(1).split('/')[2];
    await system.run(`iscsi-nbd login ${portal} ${tgt.iqn} --persistent`);
    session = await identity();
    expect(session).toMatch(/[0-9a-f]{16}/);
  });

  it('an upgrade and a downgrade hand the session over to the daemon of the other version', async () => {
    for (const version of ['1.0.1', '1.0.0', '1.0.1']) {
      const [pid] = (await programs()).split('\n');
      await upgrade(version);
      const now = await programs();
      expect(now).toContain(`"version": "${version}"`);
      expect(now.split('\n')[0]).not.toBe(pid);
      expect(await identity()).toBe(session);
      expect(await installed()).toBe(`ii  ${version}`);
    }
  });

  it('upgrades under load lose no request, and all that was written is read back', async ({
    annotate,
  }) => {
    const socket = place.file(`${suite}.sock`);
    const sessionId = (await identity()).replace(/.*"([0-9a-f]{16})".*/s, '$1');
    await symlink(system.path(`/run/iscsi-nbd/exports/${sessionId}.sock`), socket);
    const longest: string[] = [];
    for (const version of ['1.0.0', '1.0.1', '1.0.0', '1.0.1']) {
      const [pid] = (await programs()).split('\n');
      const load = new SteadyLoad(socket);
      await upgrade(version);
      expect((await programs()).split('\n')[0]).not.toBe(pid);
      const { requests } = load;
      while (load.requests < requests + 100) await sleep(10);
      const report = await load.stop();
      expect(report).toMatchObject({ errors: 0, mismatches: 0 });
      longest.push(`${(report.longestMs / 1000).toFixed(2)} s of ${report.requests}`);
    }
    await annotate(`longest request of each upgrade: ${longest.join(', ')}`);
  });

  it('a new version that does not load is not installed, and the old daemon is not ended', async () => {
    const old = await programs();
    await expect(upgrade('1.1.0')).rejects.toThrow(/1\.1\.0 does not start, so 1\.0\.1 stays: .*/);
    expect(await programs()).toBe(old);
    expect(await installed()).toBe('ii  1.0.1');
    expect(await identity()).toBe(session);
  });

  it('a new version whose daemon does not start leaves the sessions to the old one', async () => {
    const [pid] = (await programs()).split('\n');
    await expect(upgrade('1.2.0')).rejects.toThrow(
      /1\.2\.0 does not start, so 1\.0\.1 stays: (.|\n)*Version 1\.0\.1 is back/,
    );
    const now = await programs();
    expect(now).toContain('"version": "1.0.1"');
    expect(now.split('\n')[0]).not.toBe(pid);
    expect(await installed()).toBe('ii  1.0.1');
    expect(await identity()).toBe(session);
  });

  it('a downgrade refuses records of a newer version in words, and changes nothing', async () => {
    const old = await programs();
    const newer = '/var/lib/iscsi-nbd/logins/newer.json';
    await system.run(`echo '{"version":3,"sessionId":"0"}' >${newer}`);
    await expect(upgrade('1.0.0')).rejects.toThrow(/version 3 of the record format/);
    await system.run(`rm ${newer}`);
    expect(await programs()).toBe(old);
    expect(await installed()).toBe('ii  1.0.1');
  });

  it('a removal ends the daemon and keeps its logins for an installation to come', async () => {
    await apt('remove iscsi-nbd');
    await system.run('[ ! -e /run/daemon.pid ]');
    const stopped = await system.run("grep -ho 'stop .*' /run/systemctl.log");
    expect(stopped).toMatch(
      /iscsi-nbd-docker\.socket.*iscsi-nbd-docker\.service.*iscsi-nbd\.service/s,
    );
    await upgrade('1.0.1');
    expect(await identity()).toBe(session);
  });
});
