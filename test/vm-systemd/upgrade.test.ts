import { mkdir } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Workplace } from '../helpers/command-process.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { buildVersions, changedPackage, MAIN_FILE } from '../packaging/packages.js';
import { Machine, machineOfEnvironment } from './machine.js';

const MIB = 1 << 20;
/** Writes with flushes, and reads back what it wrote, until the test ends it. */
const LOAD = [
  ...['fio --name=load --directory=/srv/data --size=16m --numjobs=2 --rw=randwrite --bs=16k'],
  ...['--direct=1 --fsync=16 --verify=crc32c --verify_backlog=32 --verify_fatal=1'],
  ...['--time_based --runtime=3600 --output-format=json --output=/run/load.json'],
].join(' ');

let place: Workplace;
let tgt: Tgt;
let machine: Machine;
let identity: string;

beforeAll(async () => {
  place = await Workplace.make();
  const packages = place.file('packages');
  await mkdir(packages);
  await buildVersions(packages, ['1.0.0', '1.0.1', '1.0.2', '1.0.3']);
  await changedPackage(
    { packages, from: '1.0.3', to: '1.1.0', place },
    {
      [MAIN_FILE]: (program) =>
        program.replace(
          '\n',
          "\nif (process.argv[2] === 'daemon') throw new Error('no daemon');\n",
        ),
    },
  );
  machine = new Machine({ packages, ...machineOfEnvironment() });
  tgt = await startTgt({ luns: [{ sizeBytes: 64 * MIB }] });
  await machine.boot();
});
afterAll(async () => {
  await machine?.[Symbol.asyncDispose]();
  await tgt?.stop();
  await place?.[Symbol.asyncDispose]();
});

const INSTALL = 'apt-get -o Dpkg::Use-Pty=0 -y --allow-downgrades install';
const install = (version: string) =>
  machine.run(`${INSTALL} /packages/iscsi-nbd_${version}_amd64.deb`);
const installed = () =>
  machine.run(`dpkg-query -W -f '\${db:Status-Abbrev} \${Version}' iscsi-nbd`);
const pid = () => machine.run('systemctl show -P MainPID iscsi-nbd');

/** The disk with the number of the session that the kernel keeps for it, the ISID, and the mount. */
const identityNow = () =>
  machine.run(`
    grep -H . /sys/block/nbd*/backend
    grep -ohE '"(isid|sessionId)": ?"[0-9a-f]*"' /var/lib/iscsi-nbd/logins/*.json
    systemctl show -P ActiveState -P ActiveEnterTimestampMonotonic srv-data.mount`);

/** How many of the load's requests the kernel has finished. */
const REQUESTS = `awk '{ print $1 + $5 }' /sys/block/nbd0/stat`;
const UNTIL_MORE_REQUESTS = `
  requests=$(${REQUESTS})
  until [ $(${REQUESTS}) -gt $((requests + 100)) ]; do
    systemctl is-active --quiet load
    sleep 0.2
  done`;

type Latency = { readonly lat_ns?: { readonly max: number } };
type Job = { error: number; read: Latency; write: Latency; sync: Latency };

const startLoad = () =>
  machine.run(`
    systemd-run --quiet --unit load -p Type=exec -p SuccessExitStatus=128 ${LOAD}
    ${UNTIL_MORE_REQUESTS}`);

/** Ends the load, which must have met no error and read back what it wrote: its longest request. */
async function endLoad(): Promise<string> {
  const report = await machine.run(`
    ${UNTIL_MORE_REQUESTS}
    systemctl kill --signal INT load
    while systemctl is-active --quiet load; do sleep 0.2; done
    systemctl show -P Result load | grep -qx success
    ! dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|Aborting journal'
    sed -n '/^{/,$p' /run/load.json`);
  const { jobs }: { jobs: readonly Job[] } = JSON.parse(report);
  expect(jobs.map(({ error }) => error)).toEqual([0, 0]);
  const longest = Math.max(
    ...jobs.flatMap(({ read, write, sync }) =>
      [read, write, sync].map((at) => at.lat_ns?.max ?? 0),
    ),
  );
  return `longest request: ${(longest / 1e9).toFixed(1)} s`;
}

describe('the Debian package under systemd', () => {
  it('an installation starts the service, and a LUN of tgt becomes a disk that is mounted', async () => {
    await install('1.0.0');
    await machine.run(`
      systemctl is-active --quiet iscsi-nbd
      iscsi-nbd login 10.0.2.2:${tgt.port} ${tgt.iqn} --persistent
      udevadm wait /dev/nbd0
      mkfs.ext4 -q /dev/nbd0
      mkdir -p /srv/data
      mount /dev/nbd0 /srv/data`);
    await startLoad();
    identity = await identityNow();
    expect(identity).toMatch(/\/nbd0\/backend:iscsi-nbd:/);
  });

  it.each(['1.0.1', '1.0.2', '1.0.3', '1.0.2'])(
    'version %s takes the session and the disk over under load',
    async (version) => {
      const old = await pid();
      await install(version);
      expect(await installed()).toBe(`ii  ${version}`);
      expect(await pid()).not.toBe(old);
      await machine.run(UNTIL_MORE_REQUESTS);
      expect(await identityNow()).toBe(identity);
    },
  );

  it('no request of the upgrades met an error, and all that was written is read back', async ({
    annotate,
  }) => {
    // Mostly Node's start, which an emulated processor makes several times as long.
    await annotate(await endLoad());
    // The disk has not waited for a module that was there.
    expect(await machine.run('systemctl show -P ConditionResult modprobe@nbd')).toBe('no');
  });

  it('a new version whose daemon does not start leaves the disk to the old one, and apt says so', async ({
    annotate,
  }) => {
    await startLoad();
    await expect(install('1.1.0')).rejects.toThrow(
      /1\.1\.0 does not start, so 1\.0\.2 stays: (.|\n)*Version 1\.0\.2 is back and has its sessions/,
    );
    expect(await installed()).toBe('ii  1.0.2');
    await annotate(await endLoad());
    expect(await identityNow()).toBe(identity);
    await machine.run('umount /srv/data && e2fsck -fn /dev/nbd0');
  });
});
