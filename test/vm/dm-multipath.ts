/**
 * open-iscsi with dm-multipath on the same disks, set up as their own documentation says: Debian's
 * packages `open-iscsi` and `multipath-tools`, which are not among those that the tests need.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { run, until } from './attached.js';
import type { PathUser } from './attached-paths.js';

const MODULES = ['iscsi_tcp', 'sd_mod', 'sg', 'dm_multipath', 'dm_service_time', 'scsi_dh_alua'];

/** Those of multipath.conf(5) for a target with ALUA; all else is the default. */
const MULTIPATH_CONF = `
defaults {
  find_multipaths no
}
blacklist {
  devnode "^(nbd|loop|ram|zram|ubd)"
}
devices {
  device {
    vendor "LIO-ORG"
    product ".*"
    path_grouping_policy group_by_prio
    prio alua
    path_checker tur
    hardware_handler "1 alua"
    failback immediate
    no_path_retry queue
  }
}
`;

export type DmTimeouts = {
  readonly noopInterval: number;
  readonly noopTimeout: number;
  /** README of open-iscsi, "Optimal replacement_timeout Value": 5 to 15 with dm-multipath. */
  readonly replacement: number;
};

export async function dmMultipath(
  iqn: string,
  portals: readonly string[],
  timeouts: DmTimeouts,
): Promise<PathUser> {
  const processes: ChildProcess[] = [];
  const start = (program: string, ...args: string[]) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout?.resume();
    child.stderr?.resume();
    processes.push(child);
  };
  const untilDone = (program: string, ...args: string[]) =>
    until(
      () =>
        run(program, ...args).then(
          () => true,
          () => false,
        ),
      120_000,
      () => `${program} ${args.join(' ')}`,
    );
  await run('modprobe', '-a', ...MODULES);
  await mkdir('/run/lock/iscsi', { recursive: true });
  await mkdir('/etc/iscsi', { recursive: true });
  await writeFile('/etc/iscsi/initiatorname.iscsi', 'InitiatorName=iqn.2024-01.com.example:dm\n');
  await writeFile('/etc/multipath.conf', MULTIPATH_CONF);
  start('/lib/systemd/systemd-udevd');
  await untilDone('udevadm', 'control', '--ping');
  start('multipathd', '-d');
  await untilDone('multipathd', 'show', 'daemon');
  start('iscsid', '-f');
  const [portal = ''] = portals;
  await untilDone('iscsiadm', '-m', 'discovery', '-t', 'sendtargets', '-p', portal);
  const settings = {
    'node.conn[0].timeo.noop_out_interval': timeouts.noopInterval,
    'node.conn[0].timeo.noop_out_timeout': timeouts.noopTimeout,
    'node.session.timeo.replacement_timeout': timeouts.replacement,
  };
  const node = ['-m', 'node', '-T', iqn];
  for (const [name, value] of Object.entries(settings)) {
    await run('iscsiadm', ...node, '-o', 'update', '-n', name, '-v', String(value));
  }
  await run('iscsiadm', ...node, '-l');
  await until(
    async () => (await mapsOf()).filter(({ paths }) => paths === 2).length === 2,
    120_000,
    () => 'two maps with two paths each',
  );
  const maps = await mapsOf();
  const deviceOf = (lun: number) => {
    const map = maps.find((one) => one.lun === lun);
    if (map === undefined) throw new Error(`there is no map of LUN ${lun}`);
    return `/dev/mapper/${map.name}`;
  };
  const devices = [deviceOf(0), deviceOf(1)] as const;
  console.log(await run('multipath', '-ll'));
  return {
    devices,
    untilBothPaths: () =>
      until(
        async () => (await mapsOf()).every(({ isAsWished }) => isAsWished),
        120_000,
        () => 'both paths of both maps',
      ),
    troubles: async () => {
      const names = (await mapsOf()).map(({ name }) => `/dev/mapper/${name}`).sort();
      return names.join() === [...devices].sort().join() ? [] : [`the maps are ${names}`];
    },
    end: async () => {
      await run('multipath', '-F');
      await run('iscsiadm', ...node, '-u');
      for (const child of processes) child.kill('SIGKILL');
    },
  };
}

type DmMap = {
  readonly name: string;
  readonly lun: number;
  readonly paths: number;
  /** Both paths are ready, with the priorities of their groups. */
  readonly isAsWished: boolean;
};

/** From `multipathd show`; the paths by their host:channel:target:LUN. */
async function mapsOf(): Promise<DmMap[]> {
  const shown = await run('multipathd', 'show', 'paths', 'raw', 'format', '%m|%i|%t|%T|%p|%d');
  const byName = new Map<string, { lun: number; states: string[] }>();
  for (const line of shown.trim().split('\n')) {
    const [name = '', hctl = '', dm = '', checker = '', priority = ''] = line
      .split('|')
      .map((word) => word.trim());
    if (name === '' || name === '[orphan]') continue;
    const entry = byName.get(name) ?? { lun: Number(hctl.split(':')[3]), states: [] };
    entry.states.push(`${dm} ${checker} ${priority}`);
    byName.set(name, entry);
  }
  const maps: DmMap[] = [];
  for (const [name, { lun, states }] of byName) {
    const wished = ['active ready 10', 'active ready 50'];
    const isAsWished = states.sort().join() === wished.join();
    maps.push({ name, lun, paths: states.length, isAsWished });
  }
  return maps;
}
