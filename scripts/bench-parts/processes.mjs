// The processes of a benchmark: targets, servers, fio; and what the kernel counts about them.
import { execFile, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { truncate, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { fioResult } from '../lib/fio.mjs';

/** @import { BenchCase } from './cases.mjs' */

/** @typedef {ReturnType<typeof start>} Child */
/** @typedef {{ url: string, stop: () => Promise<void> }} BenchTarget */
/** @typedef {Awaited<ReturnType<typeof startServer>>} BenchServer */
/** @typedef {import('../lib/fio.mjs').FioResult & { cpuMicros: number }} BenchRun */
/** @typedef {{ perIo: number, calls: Record<string, number> }} Syscalls each by request */

const run = promisify(execFile);
const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const DISK_MEBIBYTES = 1024;
const IQN = 'iqn.2024-01.com.example:bench';
const READY_MS_MAX = 20_000;
/** Kernel clock ticks a second in /proc/PID/stat; USER_HZ is 100 on every Linux we run on. */
const TICKS = 100;

/**
 * Starts a command that dies with this process; `cpu` pins it.
 * @param {readonly string[]} command
 * @param {{ cpu?: number | null, env?: NodeJS.ProcessEnv }} [how]
 */
export function start(command, { cpu = null, env = process.env } = {}) {
  const pinned = cpu === null ? command : ['taskset', '-c', String(cpu), ...command];
  const argv = ['--pdeathsig', 'KILL', ...pinned];
  const child = spawn('setpriv', argv, { stdio: ['ignore', 'ignore', 'pipe'], env });
  const { pid } = child;
  if (pid === undefined) throw new Error('setpriv cannot be started');
  let said = '';
  child.stderr.on('data', (data) => {
    said = (said + data).slice(-4000);
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  return {
    pid,
    isRunning: () => child.exitCode === null && child.signalCode === null,
    said: () => said,
    /** @param {NodeJS.Signals} signal */
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      await Promise.race([ended, sleep(3000)]);
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/**
 * @param {string} what
 * @param {Child} child
 * @param {() => boolean | Promise<boolean>} isReady
 */
export async function until(what, child, isReady) {
  for (let waited = 0; waited < READY_MS_MAX; waited += 20) {
    if (await isReady()) return;
    if (!child.isRunning()) throw new Error(`${what} ended: ${child.said()}`);
    await sleep(20);
  }
  throw new Error(`${what} is not ready: ${child.said()}`);
}

/** @returns {Promise<number>} */
export function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address();
      if (address === null || typeof address === 'string') throw new Error('TCP has no port');
      server.close(() => resolve(address.port));
    });
  });
}

/**
 * @param {number} port
 * @returns {Promise<boolean>}
 */
function answers(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

/** @param {BenchCase} entry */
const cpuOf = (entry) => (entry.oneCpu ? 0 : null);

/**
 * `fast` is our own RAM target, `fast-cache` the same with a write cache (WCE=1), `tgt` Debian's with
 * a file behind it.
 * @param {string} name
 * @param {{ folder: string, fastTarget: string | undefined, entry: BenchCase }} how
 * @returns {Promise<BenchTarget>}
 */
export async function startTarget(name, { folder, fastTarget, entry }) {
  const port = await freePort();
  const url = `iscsi://127.0.0.1:${port}/${IQN}/1`;
  const cpu = cpuOf(entry);
  if (name === 'fast' || name === 'fast-cache') {
    if (fastTarget === undefined) throw new Error('--fast-target names no program');
    const cache = name === 'fast-cache' ? ['2', 'cache'] : [];
    const child = start([fastTarget, String(port), String(DISK_MEBIBYTES), ...cache], { cpu });
    await until('fast-target', child, () => answers(port));
    return { url, stop: () => child.stop('SIGKILL') };
  }
  if (name !== 'tgt') throw new Error(`there is no target ${name}`);
  const env = { ...process.env, TGT_IPC_SOCKET: join(folder, `tgt-${port}`) };
  const file = join(folder, 'disk');
  await writeFile(file, '');
  await truncate(file, DISK_MEBIBYTES << 20);
  const child = start(['tgtd', '-f', '--iscsi', `portal=127.0.0.1:${port}`], { cpu, env });
  /** @param {string[]} words */
  const adm = (...words) => run('tgtadm', ['--lld', 'iscsi', ...words], { env });
  await until('tgtd', child, () =>
    run('tgtadm', ['--mode', 'system', '--op', 'show'], { env }).then(
      ({ stdout }) => stdout.includes('State: ready'),
      () => false,
    ),
  );
  await adm('--mode', 'target', '--op', 'new', '--tid', '1', '--targetname', IQN);
  const unit = ['--mode', 'logicalunit', '--op', 'new', '--tid', '1', '--lun', '1'];
  await adm(...unit, '--backing-store', file);
  await adm('--mode', 'target', '--op', 'bind', '--tid', '1', '--initiator-address', 'ALL');
  return { url, stop: () => child.stop('SIGKILL') };
}

/**
 * `ours`, `ours+digests`, `ours+paths` (two sessions), `ours+unretained` (no retained writes),
 * `ours@DIST` (another build) or `qemu-nbd`, on a unix socket.
 * @param {string} variant
 * @param {{ folder: string, target: BenchTarget, index: number, entry: BenchCase }} how
 */
export async function startServer(variant, { folder, target, index, entry }) {
  const socket = join(folder, `${index}.sock`);
  const child = start(serverCommand(variant, { socket, url: target.url }), { cpu: cpuOf(entry) });
  await until(variant, child, () => existsSync(socket));
  return {
    pid: child.pid,
    uri: `nbd+unix:///?socket=${socket}`,
    cpuTicks: () => cpuTicks(child.pid),
    peakKiB: () => statusNumber(child.pid, 'VmHWM'),
    async stop() {
      await child.stop();
      await run('rm', ['-f', socket]);
    },
  };
}

/**
 * @param {string} variant
 * @param {{ socket: string, url: string }} places
 */
function serverCommand(variant, { socket, url }) {
  if (variant === 'qemu-nbd') {
    return ['qemu-nbd', '-t', '-e', '8', '-k', socket, '-f', 'raw', '--cache=none', url];
  }
  const [name, dist = join(PROJECT, 'dist')] = variant.split('@');
  const flags = FLAGS[name ?? ''];
  if (flags === undefined) throw new Error(`there is no ${variant}`);
  // Two of ours serve one LUN side by side, which is otherwise refused.
  const program = join(dist, 'cli/main.js');
  const command = [...interpreterOf(program), program, 'serve', url, '--shared'];
  return [...command, '--socket', socket, ...flags];
}

/**
 * Node with the flags that the installed command has, from the first line of `program`.
 * @param {string} program
 */
export function interpreterOf(program) {
  const [line = ''] = readFileSync(program, 'utf8').split('\n');
  return /^#!\/usr\/bin\/env -S (node.*)$/.exec(line)?.[1]?.split(' ') ?? ['node'];
}

/** @type {Readonly<Record<string, readonly string[]>>} */
const FLAGS = {
  ours: [],
  'ours+digests': ['--header-digest', 'CRC32C', '--data-digest', 'CRC32C'],
  'ours+paths': ['--multipath', 'auto', '--sessions-per-portal', '2'],
  'ours+unretained': ['--retain-writes', 'never'],
};

/**
 * User and system time of a process and its threads, in ticks.
 * @param {number} pid
 */
export function cpuTicks(pid) {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/**
 * @param {number} pid
 * @param {string} key of /proc/PID/status
 */
export function statusNumber(pid, key) {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? Number.NaN);
}

/**
 * One fio run; what fio saw, and the CPU time the server took meanwhile.
 * @param {BenchServer} server
 * @param {BenchCase} entry
 * @param {number} seconds
 * @returns {Promise<BenchRun>}
 */
export async function runFio(server, entry, seconds) {
  const argv = [
    '--name=bench',
    '--ioengine=nbd',
    `--uri=${server.uri}`,
    `--rw=${entry.rw}`,
    `--bs=${entry.bs}`,
    `--iodepth=${entry.depth}`,
    `--size=${DISK_MEBIBYTES}m`,
    '--time_based',
    `--runtime=${seconds}`,
    '--output-format=json',
    '--norandommap',
    ...(entry.mix ? [`--rwmixread=${entry.mix}`] : []),
  ];
  const before = server.cpuTicks();
  const [command, words] = entry.oneCpu ? ['taskset', ['-c', '0', 'fio']] : ['env', ['fio']];
  const { stdout } = await run(command, [...words, ...argv], { maxBuffer: 1 << 26 });
  const ticks = server.cpuTicks() - before;
  const result = fioResult(stdout, entry.name);
  return { ...result, cpuMicros: (ticks / TICKS / result.ios) * 1e6 };
}

/**
 * System calls a request, from a run of its own: strace slows everything down.
 * @param {BenchServer} server
 * @param {BenchCase} entry
 * @returns {Promise<Syscalls>}
 */
export async function syscallsDuring(server, entry) {
  const tracer = start(['strace', '-c', '-f', '-U', 'calls,name', '-p', String(server.pid)]);
  await until('strace', tracer, () => statusNumber(server.pid, 'TracerPid') > 0);
  const { ios } = await runFio(server, entry, 1.5);
  await tracer.stop('SIGINT');
  /** @type {Record<string, number>} */
  const calls = {};
  let perIo = 0;
  for (const line of tracer.said().split('\n')) {
    const [, count, name] = /^\s*(\d+)\s+(\w+)$/.exec(line) ?? [];
    if (name === undefined || name === 'total') continue;
    calls[name] = Number(count) / ios;
    perIo += calls[name];
  }
  return { perIo, calls };
}
