// 200 sessions with 1000 LUNs in one daemon.
import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { median, number, row } from '../bench-parts/report.mjs';
import { startDaemon, startTarget, threadMs } from './processes.mjs';
import { mebibytes, partsWords } from './rounds.mjs';

/** @import { ScaleDaemon } from './processes.mjs' */
/** @import { ScalePlan } from './rounds.mjs' */

const run = promisify(execFile);
const SESSIONS = 200;
const LUNS = 5;
const DEPTH = 4;
/** In which all clients of the load are started; it does not count. */
const RAMP_SECONDS = 3;
/** Two hundred clients take turns on the processors, and a session has few turns in a few seconds. */
const LOAD_SECONDS = 15;

/**
 * Of one round: the sum over all sessions, the slowest to the median of all and to that of its own
 * worker, and of each worker its sessions, their median and its part of a processor.
 * @typedef {object} Round
 * @property {number} iops
 * @property {number} ofAll
 * @property {number} ofOwn
 * @property {readonly { count: number, median: number, used: number }[]} workers
 */

/** @param {ScalePlan} plan */
export async function many(plan) {
  const target = await startTarget(plan.fastTarget, LUNS);
  const titles = ['RSS MiB', 'PSS MiB', 'logins s', 'restart s', 'IOPS', 'slowest / median'];
  const lines = [row(['', ...titles, 'in its worker']), row(['', ...titles, ''].map(() => '---'))];
  /** @type {string[]} */
  const words = [];
  try {
    for (const workers of [0, 2]) {
      const measured = await measure(plan, target, workers);
      lines.push(measured.line);
      words.push(...measured.words);
    }
  } finally {
    await target.stop();
  }
  const load = `${plan.rounds} rounds of ${LOAD_SECONDS} s, in which each session has a client`;
  const last = `The load: medians of ${load} with a queue of ${DEPTH} on one of its LUNs.`;
  return [...lines, '', ...words, last];
}

/**
 * @param {ScalePlan} plan
 * @param {Awaited<ReturnType<typeof startTarget>>} target
 * @param {number} workers
 */
async function measure({ folder, rounds }, target, workers) {
  const name = `many-${workers}`;
  const start = () => startDaemon(folder, target, name, ['--workers', `${workers}`]);
  const first = await start();
  const loginSeconds = await timed(async () => {
    for (let session = 0; session < SESSIONS; session += 1) await first.login({ luns: 'all' });
  });
  await first.kill();
  for (const path of [`${name}.control`, `${name}.d`]) {
    rmSync(join(folder, path), { recursive: true, force: true });
  }
  /** @type {ScaleDaemon | undefined} */
  let daemon;
  const restartSeconds = await timed(async () => {
    daemon = await start();
    await daemon.ready(SESSIONS);
  });
  if (daemon === undefined) throw new Error('the daemon has not started again');
  const { rss, pss } = await daemon.memory();
  const homes = await daemon.workers();
  /** @type {Round[]} */
  const measured = [];
  for (let round = 0; round < rounds; round += 1) {
    const one = await roundOf(daemon, homes, workers);
    measured.push(one);
    process.stderr.write(`${workers} workers: ${JSON.stringify(one)}\n`);
  }
  await daemon.stop();
  const title = workers === 0 ? 'without workers' : `${workers} workers`;
  const times = [loginSeconds, restartSeconds].map((one) => one.toFixed(1));
  const iops = number(median(measured.map((one) => one.iops)));
  const shares = [
    partsWords(measured.map((one) => one.ofAll)),
    workers === 0 ? '' : partsWords(measured.map((one) => one.ofOwn)),
  ];
  return {
    line: row([title, mebibytes(rss), mebibytes(pss), ...times, iops, ...shares]),
    words: workers === 0 ? [] : [workerWords(measured)],
  };
}

/** @param {readonly Round[]} rounds */
function workerWords(rounds) {
  const parts = (rounds[0]?.workers ?? []).map(({ count }, worker) => {
    const speed = median(rounds.map(({ workers }) => workers[worker]?.median ?? 0));
    const used = median(rounds.map(({ workers }) => workers[worker]?.used ?? 0));
    const share = `${(used * 100).toFixed(0)} % of a processor`;
    return `worker ${worker} has ${count} sessions, ${number(speed)} IOPS in their median, ${share}`;
  });
  const ratios = rounds.map(({ workers }) => {
    const speeds = workers.map((worker) => worker.median);
    return Math.min(...speeds) / Math.max(...speeds);
  });
  return `${parts.join('; ')}; the slower worker to the faster: ${median(ratios).toFixed(2)}.`;
}

/** @param {() => Promise<void>} action */
async function timed(action) {
  const begin = performance.now();
  await action();
  return (performance.now() - begin) / 1000;
}

/**
 * The same job on a LUN of each session.
 * @param {ScaleDaemon} daemon
 * @param {readonly number[]} homes the worker of each session
 * @param {number} workers
 * @returns {Promise<Round>}
 */
async function roundOf(daemon, homes, workers) {
  const threads = Array.from({ length: workers }, (_none, worker) => daemon.threadOf(worker));
  const cpuMs = () => threads.map((thread) => threadMs(daemon.pid, thread));
  const before = cpuMs();
  const speeds = await speedsOf(daemon.uris());
  const after = cpuMs();
  const ms = (RAMP_SECONDS + LOAD_SECONDS) * 1000;
  const slowest = Math.min(...speeds);
  /** @param {number} worker */
  const speedsIn = (worker) => speeds.filter((_speed, session) => homes[session] === worker);
  const ofOwn = speedsIn(homes[speeds.indexOf(slowest)] ?? 0);
  return {
    iops: speeds.reduce((sum, one) => sum + one, 0),
    ofAll: slowest / median(speeds),
    ofOwn: slowest / median(ofOwn),
    workers: threads.map((_thread, worker) => ({
      count: speedsIn(worker).length,
      median: median(speedsIn(worker)),
      used: ((after[worker] ?? 0) - (before[worker] ?? 0)) / ms,
    })),
  };
}

/**
 * The I/Os a second of each client.
 * @param {readonly string[]} uris
 */
async function speedsOf(uris) {
  const job = ['--rw=randread', '--bs=4k', `--iodepth=${DEPTH}`, '--size=64m', '--norandommap'];
  const times = ['--time_based', `--ramp_time=${RAMP_SECONDS}`, `--runtime=${LOAD_SECONDS}`];
  const jobs = uris.flatMap((uri, index) => [`--name=job${index}`, `--uri=${uri}`]);
  const all = ['--thread', '--ioengine=nbd', ...job, ...times, '--output-format=json', ...jobs];
  const { stdout } = await run('fio', all, { maxBuffer: 1 << 28 });
  /** @type {{ jobs: { error: number, read: { iops: number } }[] }} */
  const report = JSON.parse(stdout.slice(stdout.indexOf('{')));
  if (report.jobs.length !== SESSIONS || report.jobs.some(({ error }) => error !== 0)) {
    throw new Error(`fio has failed on one of ${report.jobs.length} sessions`);
  }
  return report.jobs.map(({ read }) => read.iops);
}
