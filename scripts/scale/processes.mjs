// The processes of scripts/scale/run: the C target with many LUNs, our servers, and fio with many
// jobs.
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  cpuTicks,
  freePort,
  interpreterOf,
  start,
  statusNumber,
  until,
} from '../bench-parts/processes.mjs';
import { fioResult } from '../lib/fio.mjs';

/** @typedef {Awaited<ReturnType<typeof startTarget>>} ScaleTarget */
/** @typedef {Awaited<ReturnType<typeof startDaemon>>} ScaleDaemon */
/** @typedef {{ cpuTicks: () => number }} MeasuredServer */

/**
 * Bytes, after garbage collection: of the heap, resident, and the share of those (PSS).
 * @typedef {{ heap: number, external: number, rss: number, pss: number }} MemoryUse
 */

/** @typedef {{ ios: number, iops: number, megabytes: number, p99: number, cpuMicros: number }} FioSum */

const run = promisify(execFile);
const HERE = fileURLToPath(new URL('.', import.meta.url));
/** `ISCSI_NBD_CLI` names another build. */
const MAIN = process.env['ISCSI_NBD_CLI'] ?? join(HERE, '../../dist/cli/main.js');
const TICKS = 100;
const DISK_MEBIBYTES = 256;
/** Of the target: any name is one of its targets. */
const IQN = 'iqn.2024-01.com.example:scale';

/**
 * LUNs 0 to `luns` - 1, all of them the same memory.
 * @param {string | undefined} program
 * @param {number} luns
 */
export async function startTarget(program, luns) {
  if (program === undefined) throw new Error('--fast-target names no program');
  const port = await freePort();
  const child = start([program, String(port), String(DISK_MEBIBYTES), String(luns)]);
  await until('fast-target', child, () => isListening(port));
  return { port, stop: () => child.stop('SIGKILL') };
}

/** @param {number} port */
function isListening(port) {
  const wanted = port.toString(16).toUpperCase().padStart(4, '0');
  return new RegExp(`:${wanted} 00000000:0000 0A`).test(readFileSync('/proc/net/tcp', 'utf8'));
}

/**
 * A process of ours that reports its memory.
 * @param {string} folder
 * @param {readonly string[]} words
 */
function startOurs(folder, words) {
  const report = join(
    folder,
    `report-${words.join('-').replaceAll(/[^a-z0-9]/g, '')}`.slice(0, 200),
  );
  const env = { ...process.env, SCALE_REPORT: report, ISCSI_NBD_INITIATOR_NAME: `${IQN}-host` };
  const argv = [...interpreterOf(MAIN), '--require', join(HERE, 'report.cjs'), MAIN, ...words];
  const child = start(argv, { env });
  return {
    child,
    pid: child.pid,
    cpuTicks: () => cpuTicks(child.pid),
    stop: () => child.stop(),
    /**
     * The thread of a worker.
     * @param {number} worker
     */
    threadOf: (worker) => Number(readFileSync(`${report}.thread-${worker}`, 'utf8')),
    /**
     * The receives and sends of that many workers so far.
     * @param {number} count
     */
    async socketCalls(count) {
      const files = Array.from(
        { length: count },
        (_none, worker) => `${report}.counters-${worker}`,
      );
      for (const file of files) rmSync(file, { force: true });
      process.kill(child.pid, 'SIGWINCH');
      await until('counters', child, () => files.every((file) => existsSync(file)));
      const all = files.map((file) => JSON.parse(readFileSync(file, 'utf8')));
      return all.reduce((sum, { receives, sends }) => sum + receives + sends, 0);
    },
    /** @returns {Promise<MemoryUse>} */
    async memory() {
      rmSync(report, { force: true });
      process.kill(child.pid, 'SIGUSR2');
      await until('memory report', child, () => existsSync(report));
      /** @type {NodeJS.MemoryUsage} */
      const { heapUsed, external } = JSON.parse(readFileSync(report, 'utf8'));
      const rollup = readFileSync(`/proc/${child.pid}/smaps_rollup`, 'utf8');
      /** @param {string} key */
      const bytes = (key) => {
        const [, kibibytes] = new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(rollup) ?? [];
        return Number(kibibytes) * 1024;
      };
      return { heap: heapUsed, external, rss: bytes('Rss'), pss: bytes('Pss') };
    },
    peak: () => statusNumber(child.pid, 'VmHWM') * 1024,
  };
}

/**
 * `serve` of one target; its exports are the LUNs, by number, or the only one.
 * @param {string} folder
 * @param {ScaleTarget} target
 * @param {{ name: string, lun?: number | null }} what
 */
export async function startServe(folder, target, { name, lun = null }) {
  const socket = join(folder, `${name}.sock`);
  const url = `iscsi://127.0.0.1:${target.port}/${IQN}-${name}${lun === null ? '' : `/${lun}`}`;
  const ours = startOurs(folder, ['serve', url, '--socket', socket]);
  await until('serve', ours.child, () => existsSync(socket));
  /** @param {number} number */
  const uri = (number) => `nbd+unix:///${lun === null ? number : ''}?socket=${socket}`;
  return { ...ours, uri };
}

/**
 * A daemon whose sessions are logged in one after the other, each with one LUN on a socket.
 * @param {string} folder
 * @param {ScaleTarget} target
 * @param {string} name
 * @param {readonly string[]} flags
 */
export async function startDaemon(folder, target, name, flags = []) {
  const control = join(folder, `${name}.control`);
  const sockets = join(folder, `${name}.d`);
  const state = ['--state-directory', join(folder, `${name}.state`)];
  const places = ['--control', control, '--socket-directory', sockets, ...state];
  const ours = startOurs(folder, ['daemon', ...places, '--log-level', 'warn', ...flags]);
  await until('daemon', ours.child, () => existsSync(control));
  const socket = connect(control);
  const answers = createInterface({ input: socket })[Symbol.asyncIterator]();
  let requests = 0;
  let sessions = 0;
  /**
   * @param {string} method
   * @param {object} params
   */
  const call = async (method, params) => {
    requests += 1;
    socket.write(`${JSON.stringify({ jsonrpc: '2.0', id: requests, method, params })}\n`);
    const line = await answers.next();
    if (line.done) throw new Error(`${method}: the daemon closed its control socket`);
    /** @type {{ error?: { message: string }, result?: any }} */
    const { error, result } = JSON.parse(line.value);
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  };
  return {
    ...ours,
    /**
     * `readOnly` sessions may share their LUN. Returns the worker that has the session.
     * @param {{ luns?: readonly number[] | 'all', readOnly?: boolean }} [options]
     * @returns {Promise<number | undefined>}
     */
    async login({ luns = [1], readOnly = true } = {}) {
      sessions += 1;
      const { session } = await call('LoginToTarget', {
        TargetName: `${IQN}-${name}-${sessions}`,
        TargetPortal: `127.0.0.1:${target.port}`,
        LoginOptions: { ...(luns === 'all' ? {} : { luns }), readOnly },
      });
      return session.worker;
    },
    /**
     * The worker of each session, in the order of `uris`; 0 without workers.
     * @returns {Promise<number[]>}
     */
    async workers() {
      const { sessions: views } = await call('InitiatorSessionInfo', {});
      /** @type {Map<string, number>} */
      const byId = new Map();
      for (const { UniqueSessionId, worker } of views) byId.set(UniqueSessionId, worker ?? 0);
      return readdirSync(sockets).map((file) => byId.get(file.replace('.sock', '')) ?? -1);
    },
    uris: () => readdirSync(sockets).map((file) => `nbd+unix:///1?socket=${join(sockets, file)}`),
    /**
     * Waits until that number of sessions has its disks.
     * @param {number} count
     */
    ready: (count) =>
      until(
        'sessions',
        ours.child,
        () => existsSync(sockets) && readdirSync(sockets).length >= count,
      ),
    async kill() {
      socket.destroy();
      await ours.child.stop('SIGKILL');
    },
    async stop() {
      socket.destroy();
      await ours.stop();
    },
  };
}

/**
 * What a thread has had of a processor so far.
 * @param {number} pid
 * @param {number} thread
 */
export function threadMs(pid, thread) {
  const path = `/proc/${pid}/task/${thread}/schedstat`;
  return Number(readFileSync(path, 'latin1').split(' ')[0]) / 1e6;
}

/**
 * One fio with a job for each URI; the sum over them, and the CPU time of `servers` meanwhile. It
 * ends after `ios`, if there is that number, or else after `seconds`.
 * @param {readonly string[]} uris
 * @param {readonly MeasuredServer[]} servers
 * @param {{ rw: string, bs: string, depth: number, seconds?: number, ios?: number }} job
 * @returns {Promise<FioSum>}
 */
export async function fio(uris, servers, { rw, bs, depth, seconds, ios }) {
  const argv = [
    '--thread',
    '--ioengine=nbd',
    `--rw=${rw}`,
    `--bs=${bs}`,
    `--iodepth=${depth}`,
    `--size=${DISK_MEBIBYTES}m`,
    '--norandommap',
    '--group_reporting',
    '--output-format=json',
    ...(ios === undefined
      ? ['--time_based', `--runtime=${seconds}`]
      : ['--io_size=1000t', `--number_ios=${ios}`]),
    ...uris.flatMap((uri, index) => [`--name=job${index}`, `--uri=${uri}`]),
  ];
  const ticks = () => servers.reduce((sum, server) => sum + server.cpuTicks(), 0);
  const before = ticks();
  const { stdout } = await run('fio', argv, { maxBuffer: 1 << 28 });
  const cpu = ticks() - before;
  // `--group_reporting` makes one of all jobs.
  const result = fioResult(stdout, `${uris.length} exports`);
  const { iops, megabytes, p99 } = result;
  return { ios: result.ios, iops, megabytes, p99, cpuMicros: (cpu / TICKS / result.ios) * 1e6 };
}
