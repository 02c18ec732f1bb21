// Targets in the VM, and a block device of each initiator that is compared. All of it is the whole
// machine's (configfs, modules, /etc), so it runs nowhere but in scripts/vm/run.
import { execFile, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

/** @typedef {{ port: number, iqn: string, lun: number }} DiskTarget */
/** @typedef {{ user: number, system: number }} CpuTicks */
/**
 * A setting of a variant, by name.
 * @typedef {readonly [key: string, value: string]} Setting
 */
/**
 * A block device; `pid` is that of the process behind it, null where the kernel does it all.
 * @typedef {{ device: string, pid: number | null, stop: () => Promise<unknown> }} StartedDisk
 */
/**
 * @callback DiskStarter
 * @param {DiskTarget} target
 * @param {number} index of the variant
 * @param {readonly Setting[]} settings
 * @returns {Promise<StartedDisk>}
 */
/** @typedef {{ variant: string, queue: string, cpuTicks: () => CpuTicks }} DiskFacts */
/** @typedef {StartedDisk & DiskFacts} ComparedDisk */

export const run = promisify(execFile);
export const DISK_MEBIBYTES = 256;
/** Emulated and beside other work, Node alone may take a minute to start. */
const READY_MS_MAX = 400_000;
const INITIATOR = 'iqn.2024-01.com.example:bench';
/** Ours gets the lowest free number, so the other one is at the end. */
const NBD_DEVICES = 8;

/**
 * @param {string} command
 * @param {readonly string[]} words
 */
function start(command, words) {
  const child = spawn(command, words, { stdio: ['ignore', 'pipe', 'pipe'] });
  /** @type {string[]} */
  const lines = [];
  let said = '';
  /** @param {unknown} data */
  const hear = (data) => {
    said = (said + data).slice(-4000);
  };
  child.stderr.on('data', hear);
  child.stdout.on('data', hear);
  child.stdout.on('data', (data) => lines.push(...String(data).split('\n').filter(Boolean)));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.once('error', hear);
  return {
    pid: child.pid ?? null,
    lines,
    /**
     * What `isReady` gives once that is true.
     * @template T
     * @param {string} what
     * @param {() => T | Promise<T>} isReady
     */
    async until(what, isReady) {
      for (let waited = 0; waited < READY_MS_MAX; waited += 50) {
        const found = await isReady();
        if (found) return found;
        if (child.exitCode !== null) throw new Error(`${what} ended: ${said}`);
        await sleep(50);
      }
      throw new Error(`${what} is not ready: ${said}`);
    },
    async stop() {
      child.kill('SIGTERM');
      await Promise.race([ended, sleep(30_000)]);
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/**
 * `tgt` with a file in memory, `lio` with its own RAM disk, `fast` the one of scripts/bench.
 * @param {string} name
 * @param {{ fastTarget: string }} programs
 * @returns {Promise<DiskTarget>}
 */
export async function startTarget(name, { fastTarget }) {
  if (name === 'tgt') return startTgt();
  if (name === 'lio') return startLio();
  if (name === 'fast') return startFast(fastTarget);
  throw new Error(`there is no target ${name}`);
}

async function startTgt() {
  const port = 3261;
  const iqn = 'iqn.2024-01.com.example:tgt';
  await run('truncate', ['-s', `${DISK_MEBIBYTES}M`, '/tmp/tgt-disk']);
  const child = start('tgtd', ['-f', '--iscsi', `portal=127.0.0.1:${port}`]);
  /** @param {string} words */
  const adm = (words) => run('tgtadm', `--lld iscsi ${words}`.split(' '));
  await child.until('tgtd', () =>
    adm('--mode system --op show').then(
      () => true,
      () => false,
    ),
  );
  await adm(`--mode target --op new --tid 1 --targetname ${iqn}`);
  await adm('--mode logicalunit --op new --tid 1 --lun 1 --backing-store /tmp/tgt-disk');
  await adm('--mode target --op bind --tid 1 --initiator-address ALL');
  return { port, iqn, lun: 1 };
}

/** @param {string} program */
async function startFast(program) {
  const port = 3262;
  const child = start(program, [String(port), String(DISK_MEBIBYTES)]);
  await child.until('fast-target', () => child.lines.length > 0);
  return { port, iqn: 'iqn.2024-01.com.example:fast', lun: 1 };
}

async function startLio() {
  const port = 3263;
  const iqn = 'iqn.2024-01.com.example:lio';
  await run('modprobe', ['-a', 'target_core_mod', 'iscsi_target_mod', 'crc32c_generic']);
  const config = '/sys/kernel/config/target';
  if (!existsSync(config)) await run('mount', ['-t', 'configfs', 'configfs', '/sys/kernel/config']);
  const store = `${config}/core/rd_mcp_0/bench`;
  const group = `${config}/iscsi/${iqn}/tpgt_1`;
  mkdirSync(store, { recursive: true });
  writeFileSync(`${store}/control`, `rd_pages=${DISK_MEBIBYTES * 256}`);
  writeFileSync(`${store}/enable`, '1');
  mkdirSync(`${config}/iscsi`, { recursive: true });
  mkdirSync(`${config}/iscsi/${iqn}`);
  mkdirSync(group);
  mkdirSync(`${group}/lun/lun_0`);
  symlinkSync(store, `${group}/lun/lun_0/store`);
  const attributes = { generate_node_acls: 1, demo_mode_write_protect: 0, authentication: 0 };
  for (const [key, value] of Object.entries(attributes)) {
    writeFileSync(`${group}/attrib/${key}`, String(value));
  }
  mkdirSync(`${group}/np/127.0.0.1:${port}`);
  writeFileSync(`${group}/enable`, '1');
  return { port, iqn, lun: 0 };
}

/**
 * `ours`, `qemu-nbd` or `open-iscsi`, each with `:key=value` behind it for experiments: attributes
 * of the queue in sysfs, `dist=FOLDER` or `node=FLAG`, and flags of attach (`--queue-depth-max=64`).
 * @param {string} variant
 * @param {DiskTarget} target
 * @param {number} index
 * @returns {Promise<ComparedDisk>}
 */
export async function startDisk(variant, target, index) {
  const [name = '', ...more] = variant.split(':');
  const settings = more.map(settingOf);
  const starter = STARTERS[name];
  if (starter === undefined) throw new Error(`there is no ${variant}`);
  const disk = await starter(target, index, settings);
  const queue = `/sys/block/${disk.device.slice('/dev/'.length)}/queue`;
  for (const [key, value] of settings) {
    if (existsSync(`${queue}/${key}`)) writeFileSync(`${queue}/${key}`, value);
  }
  const shown = ['scheduler', 'nr_requests', 'max_sectors_kb', 'read_ahead_kb', 'nomerges'];
  const words = shown.map((key) => `${key} ${readFileSync(`${queue}/${key}`, 'utf8').trim()}`);
  return { variant, ...disk, queue: words.join(', '), cpuTicks: () => cpuTicksOf(disk.pid) };
}

/** @type {Readonly<Record<string, DiskStarter>>} */
const STARTERS = { ours: startOurs, 'qemu-nbd': startQemuNbd, 'open-iscsi': startOpenIscsi };

/**
 * @param {string} words
 * @returns {Setting}
 */
function settingOf(words) {
  const [, key, value] = /^([^=]+)=(.*)$/.exec(words) ?? [];
  if (key === undefined || value === undefined) throw new Error(`${words} is not key=value`);
  return [key, value];
}

/** @param {DiskTarget} target */
const urlOf = ({ port, iqn, lun }) => `iscsi://127.0.0.1:${port}/${iqn}/${lun}`;

/** @type {DiskStarter} */
async function startOurs(target, index, settings) {
  /** @param {string} wanted */
  const all = (wanted) => settings.filter(([key]) => key === wanted).map(([, value]) => value);
  const flags = settings.filter(([key]) => key.startsWith('--')).flat();
  const dist = all('dist')[0] ?? `${process.cwd()}/dist`;
  const child = start('node', [
    ...all('node'),
    `${dist}/cli/main.js`,
    'attach',
    urlOf(target),
    '--json',
    '--initiator-name',
    `${INITIATOR}-${index}`,
    // An emulated Node may take longer than 15 s for its first steps.
    '--login-timeout',
    '120',
    // Two of ours may have the LUN side by side, which is otherwise refused.
    '--shared',
    ...flags,
  ]);
  const readyDevice = () => {
    /** @type {{ event: string, device?: string }[]} */
    const events = child.lines
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line));
    return events.find((event) => event.event === 'ready')?.device;
  };
  const device = await child.until('attach', readyDevice);
  return { device, pid: child.pid, stop: () => child.stop() };
}

/** @type {DiskStarter} */
async function startQemuNbd(target, index) {
  const device = `/dev/nbd${NBD_DEVICES - 1 - index}`;
  // With -v it stays in the foreground.
  const options = ['-v', '-t', '-c', device, '-f', 'raw', '--cache=none', urlOf(target)];
  const child = start('qemu-nbd', options);
  const size = device.replace('/dev/', '/sys/block/');
  await child.until('qemu-nbd', () => Number(readFileSync(`${size}/size`, 'utf8')) > 0);
  return { device, pid: child.pid, stop: () => run('qemu-nbd', ['-d', device]) };
}

/** @type {DiskStarter} */
async function startOpenIscsi(target) {
  const { port, iqn } = target;
  const known = new Set(readdirSync('/sys/block'));
  await iscsid();
  const node = ['-m', 'node', '-T', iqn, '-p', `127.0.0.1:${port}`];
  await run('iscsiadm', ['-m', 'discovery', '-t', 'sendtargets', '-p', `127.0.0.1:${port}`]);
  await run('iscsiadm', [...node, '-l']);
  /** @param {string} name */
  const isDisk = (name) => name.startsWith('sd') && !known.has(name);
  /** @type {string | undefined} */
  let found;
  for (let waited = 0; found === undefined && waited < READY_MS_MAX; waited += 50) {
    await sleep(50);
    found = readdirSync('/sys/block').find(isDisk);
  }
  if (found === undefined) throw new Error('open-iscsi has no disk');
  // As on ours: what a scheduler costs is not what is compared.
  writeFileSync(`/sys/block/${found}/queue/scheduler`, 'none');
  return { device: `/dev/${found}`, pid: null, stop: () => run('iscsiadm', [...node, '-u']) };
}

/** @type {ReturnType<typeof start> | undefined} */
let daemon;

async function iscsid() {
  if (daemon !== undefined) return;
  await run('modprobe', ['-a', 'iscsi_tcp', 'sd_mod', 'crc32c_generic']);
  writeFileSync('/etc/iscsi/initiatorname.iscsi', `InitiatorName=${INITIATOR}\n`);
  daemon = start('iscsid', ['-f']);
  await daemon.until('iscsid', () =>
    run('iscsiadm', ['-m', 'session']).then(
      () => true,
      // 21 is "no sessions", which the daemon itself says.
      (error) => error.code === 21,
    ),
  );
}

export async function prepare() {
  await run('modprobe', ['nbd', `nbds_max=${NBD_DEVICES}`]);
  await run('mkdir', ['-p', '/etc/iscsi', '/run/lock/iscsi']);
}

/**
 * User and system time of a process with all its threads, in ticks; none for a kernel's.
 * @param {number | null} pid
 * @returns {CpuTicks}
 */
function cpuTicksOf(pid) {
  if (pid === null) return { user: 0, system: 0 };
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { user: Number(fields[11]), system: Number(fields[12]) };
}
