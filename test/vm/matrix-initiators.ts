/** The same LUNs as devices of each initiator that the fault matrix compares. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Attached, attach, run, shell, sizeOf, until } from './attached.js';

export const INITIATORS = ['iscsi-nbd', 'qemu-nbd', 'open-iscsi'] as const;
export type InitiatorName = (typeof INITIATORS)[number];

export type Initiator = {
  /** Of LUN 0 and LUN 1. */
  readonly devices: readonly [string, string];
  /** Kills the process that serves the devices, and starts another one. */
  killAndStart(): Promise<void>;
};

type Portal = { readonly port: number; readonly iqn: string; readonly digests: boolean };

const START_MS_MAX = 120_000;
const NAME = 'iqn.2024-01.com.example:matrix';

function background(program: string, ...args: readonly string[]): ChildProcess {
  const child = spawn(program, args, { stdio: 'ignore' });
  child.once('error', (error) => console.log(`${program}: ${error.message}`));
  return child;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    await new Promise((done) => child.once('exit', done));
  }
}

async function startOurs({ port, iqn, digests }: Portal): Promise<Initiator> {
  const crc = digests ? ['--header-digest', 'CRC32C', '--data-digest', 'CRC32C'] : [];
  const start = (): Promise<Attached> => {
    const more = process.env['MATRIX_FLAGS']?.split(' ') ?? [];
    const flags = ['--initiator-name', NAME, '--login-timeout', '60', ...crc, ...more];
    return attach(`iscsi://127.0.0.1:${port}/${iqn}`, flags, { count: 2 });
  };
  let attached = await start();
  process.once('exit', () => {
    const count = (name: string) => attached.events.filter(({ event }) => event === name).length;
    const names = new Set(attached.events.map(({ event }) => event));
    console.log('iscsi-nbd:', [...names].map((name) => `${name} ${count(name)}`).join(', '));
  });
  const of = (lun: number) =>
    String(attached.ready.find((event) => event['lun'] === lun)?.['device']);
  return {
    devices: [of(0), of(1)],
    killAndStart: async () => {
      await attached.end('SIGKILL');
      const killedAt = performance.now();
      attached = await start();
      console.log(`iscsi-nbd: ready again after ${Math.round(performance.now() - killedAt)} ms`);
    },
  };
}

async function startQemu({ port, iqn, digests }: Portal): Promise<Initiator> {
  const devices = ['/dev/nbd12', '/dev/nbd13'] as const;
  // libiscsi 1.19 has no data digest.
  const crc = digests ? ',header-digest=crc32c' : '';
  const start = () =>
    Promise.all(
      devices.map(async (device, lun) => {
        const at = `portal=127.0.0.1:${port},target=${iqn},lun=${lun}`;
        const image = `driver=iscsi,transport=tcp,${at}${crc}`;
        const options = ['-v', '-t', '-c', device, '--cache=none', '--image-opts', image];
        const child = background('qemu-nbd', ...options);
        const isThere = async () => (await sizeOf(device)) > 0 || child.exitCode !== null;
        await until(isThere, START_MS_MAX, () => device);
        return child;
      }),
    );
  let children = await start();
  return {
    devices,
    killAndStart: async () => {
      for (const child of children) {
        child.kill('SIGKILL');
        await ended(child);
      }
      await sleep(500);
      children = await start();
    },
  };
}

async function startOpenIscsi({ port, iqn, digests }: Portal): Promise<Initiator> {
  await run('modprobe', '-a', 'iscsi_tcp', 'sd_mod', 'crc32c_generic');
  await shell('mkdir -p /etc/iscsi /run/lock/iscsi');
  await writeFile('/etc/iscsi/initiatorname.iscsi', `InitiatorName=${NAME}\n`);
  let daemon = background('iscsid', '-f');
  const portal = `127.0.0.1:${port}`;
  const answers = () =>
    run('iscsiadm', '-m', 'discovery', '-t', 'sendtargets', '-p', portal).then(
      () => true,
      () => false,
    );
  await until(answers, START_MS_MAX, () => 'iscsid');
  const node = ['-m', 'node', '-T', iqn, '-p', portal];
  for (const digest of digests ? ['HeaderDigest', 'DataDigest'] : []) {
    const name = `node.conn[0].iscsi.${digest}`;
    await run('iscsiadm', ...node, '-o', 'update', '-n', name, '-v', 'CRC32C');
  }
  const disks = async () => (await readdir('/sys/block')).filter((name) => name.startsWith('sd'));
  await run('iscsiadm', ...node, '-l');
  await until(
    async () => (await disks()).length === 2,
    START_MS_MAX,
    () => 'two disks',
  );
  const [first = '', second = ''] = (await disks()).sort();
  return {
    devices: [`/dev/${first}`, `/dev/${second}`],
    killAndStart: async () => {
      daemon.kill('SIGKILL');
      await ended(daemon);
      daemon = background('iscsid', '-f');
      await sleep(2000);
    },
  };
}

const STARTERS = { 'iscsi-nbd': startOurs, 'qemu-nbd': startQemu, 'open-iscsi': startOpenIscsi };

export async function startInitiator(name: InitiatorName, portal: Portal): Promise<Initiator> {
  await mkdir('/run/iscsi-nbd/retained', { recursive: true });
  return STARTERS[name](portal);
}
