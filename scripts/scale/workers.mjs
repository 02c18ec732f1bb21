// Eight sessions in one daemon with several numbers of workers: slow ones, and with whole processors.
import { execFile } from 'node:child_process';
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { median, number, row } from '../bench-parts/report.mjs';
import { fio, startDaemon, startTarget, threadMs } from './processes.mjs';
import { interleaved, partsWords, tableOf } from './rounds.mjs';

/** @import { FioSum, ScaleDaemon } from './processes.mjs' */
/** @import { ScalePlan } from './rounds.mjs' */
/**
 * `busy` of the sessions have a load; `group` has the number of its flags.
 * @typedef {{ words: string, group: number, count: number, busy: number, daemon: ScaleDaemon }} WorkerCase
 */
/** @typedef {FioSum & { used: number, workerMicros: number, calls: number }} WorkerRun */

const run = promisify(execFile);
const SESSIONS = 8;
/** Of a processor, for each slow worker. */
const PART = 0.05;
const QUOTA_PERIOD_MICROSECONDS = 100_000;
const EVEN_PERIOD_NANOSECONDS = 1_000_000;
const SHARES = 100_000;
/** Version 1: there a thread can be alone in a group. */
const GROUPS = '/sys/fs/cgroup/cpu';
const JOB = { rw: 'randread', bs: '4k' };
/** In which V8 compiles what the load needs. */
const WARM_SECONDS = 4;
/** Slow workers as they are by default, and without busy polling. */
const POLLS = [
  { poll: '', flags: [] },
  { poll: ', no busy polling', flags: ['--busy-poll', '0'] },
];

/**
 * Each worker alone in a cgroup with a part of a processor. Target, load and the other threads of the
 * daemon have the rest of the machine. It is as fast as a whole processor for a part of each period.
 * @param {ScalePlan} plan
 */
export function slowWorkers(plan) {
  return slow(plan, 'quota', inGroup);
}

/**
 * The same part in each millisecond, by the scheduler's deadlines, which is nearer to a slow processor.
 * @param {ScalePlan} plan
 */
export function evenWorkers(plan) {
  return slow(plan, 'even', byDeadlines);
}

/**
 * One worker and two, with all processors of the machine for them, the target and the load.
 * @param {ScalePlan} plan
 */
export async function fullWorkers(plan) {
  const what = { name: 'full', counts: [1, 2], depth: 16, polls: POLLS.slice(0, 1) };
  const measured = await measure(plan, what);
  return tableOf(measured);
}

/**
 * @param {ScalePlan} plan
 * @param {string} name
 * @param {(thread: number) => Promise<string | null>} slowDown
 */
async function slow(plan, name, slowDown) {
  const titles = ['IOPS', 'p99 µs', 'CPU µs/I/O of workers', 'socket calls/I/O'];
  const lines = [row(['', ...titles, 'part used', 'of linear'])];
  lines.push(row(['', ...titles, '', ''].map(() => '---')));
  const what = { name, counts: [1, 2, 4, 8], depth: 32, polls: POLLS, slowDown };
  const measured = await measure(plan, { ...what, hasLoneSession: true });
  for (const { words, count, busy, first, runs } of measured) {
    /** @param {keyof WorkerRun} key */
    const of = (key) => median(runs.map((one) => one[key]));
    const part = busy < SESSIONS ? '' : count === 1 ? '1' : linearWords(runs, first, count);
    const figures = [of('p99').toFixed(0), of('workerMicros').toFixed(1), of('calls').toFixed(2)];
    const used = `${(of('used') * 100).toFixed(1)} %`;
    lines.push(row([words, number(of('iops')), ...figures, used, part]));
  }
  const lone = POLLS.map(({ poll }, group) => {
    const own = measured.filter((one) => one.group === group);
    const [one, all] = [own.find(({ busy }) => busy === 1), own.find(({ count }) => count === 8)];
    return `${linearWords(all?.runs ?? [], one?.runs ?? [], 8)}${poll}`;
  });
  const words = 'Eight workers to eight times one worker with one busy session';
  return [...lines, '', `${words}: ${lone.join('; ')}.`];
}

/**
 * @param {readonly WorkerRun[]} runs
 * @param {readonly WorkerRun[]} first
 * @param {number} count how often `first` would be linear
 */
function linearWords(runs, first, count) {
  return partsWords(runs.map(({ iops }, round) => iops / (first[round]?.iops ?? 0) / count));
}

/**
 * @param {ScalePlan} plan
 * @param {{ name: string, counts: readonly number[], depth: number,
 *   polls: readonly { poll: string, flags: readonly string[] }[],
 *   slowDown?: (thread: number) => Promise<string | null>, hasLoneSession?: boolean }} what
 */
async function measure(plan, what) {
  const { name, counts, depth, polls, slowDown, hasLoneSession = false } = what;
  const target = await startTarget(plan.fastTarget, 2);
  /** @type {WorkerCase[]} */
  const cases = [];
  /** @type {string[]} */
  const groups = [];
  const job = { ...JOB, depth };
  try {
    for (const [group, { poll, flags }] of polls.entries()) {
      for (const count of counts) {
        const argv = ['--workers', `${count}`, ...flags];
        const daemon = await startDaemon(plan.folder, target, `${name}${count}-${group}`, argv);
        const words = `${count} worker${count > 1 ? 's' : ''}`;
        const made = { words: `${words}${poll}`, group, count, busy: SESSIONS, daemon };
        cases.push(made);
        if (count === 1 && hasLoneSession) {
          cases.push({ ...made, words: `1 worker, one session busy${poll}`, busy: 1 });
        }
        await logIn(daemon, count);
        await fio(daemon.uris(), [daemon], { ...job, seconds: WARM_SECONDS });
        for (let worker = 0; worker < count; worker += 1) {
          const slowed = (await slowDown?.(daemon.threadOf(worker))) ?? null;
          if (slowed !== null) groups.push(slowed);
        }
      }
    }
    const measured = await interleaved(plan, cases, (entry, seconds) =>
      loaded(entry, { ...job, seconds }),
    );
    return cases.map((entry, index) => {
      const first = measured[cases.findIndex(({ group }) => group === entry.group)]?.runs ?? [];
      return { ...entry, first, runs: measured[index]?.runs ?? [] };
    });
  } finally {
    const daemons = [...new Set(cases.map((one) => one.daemon))];
    await Promise.allSettled(daemons.map((daemon) => daemon.stop()));
    await target.stop();
    for (const group of groups) rmdirSync(group);
  }
}

/**
 * @param {WorkerCase} entry
 * @param {{ rw: string, bs: string, depth: number, seconds: number }} job
 * @returns {Promise<WorkerRun>}
 */
async function loaded({ daemon, count, busy }, job) {
  const threads = Array.from({ length: count }, (_none, worker) => daemon.threadOf(worker));
  const cpuMs = () => threads.reduce((sum, thread) => sum + threadMs(daemon.pid, thread), 0);
  const calls = await daemon.socketCalls(count);
  const before = cpuMs();
  const run = await fio(daemon.uris().slice(0, busy), [daemon], job);
  const usedMs = cpuMs() - before;
  const used = usedMs / ((run.ios / run.iops) * 1000) / count;
  const callsAfter = await daemon.socketCalls(count);
  if (callsAfter === calls) throw new Error('the sockets of the workers were not counted');
  return {
    ...run,
    used,
    workerMicros: (usedMs / run.ios) * 1000,
    calls: (callsAfter - calls) / run.ios,
  };
}

/**
 * @param {ScaleDaemon} daemon
 * @param {number} count
 */
async function logIn(daemon, count) {
  /** @type {number[]} */
  const sessions = new Array(count).fill(0);
  for (let session = 0; session < SESSIONS; session += 1) {
    const worker = (await daemon.login()) ?? 0;
    sessions[worker] = (sessions[worker] ?? 0) + 1;
  }
  if (sessions.some((each) => each !== SESSIONS / count)) {
    throw new Error(`the sessions are not spread evenly over the workers: ${sessions.join()}`);
  }
}

/** @param {number} thread */
async function inGroup(thread) {
  const group = join(GROUPS, `iscsi-nbd-worker-${thread}`);
  mkdirSync(group);
  const period = QUOTA_PERIOD_MICROSECONDS;
  try {
    writeFileSync(join(group, 'cpu.cfs_period_us'), String(period));
    writeFileSync(join(group, 'cpu.cfs_quota_us'), String(period * PART));
    // The quota is to be the only limit, not the load of the machine.
    writeFileSync(join(group, 'cpu.shares'), String(SHARES));
    writeFileSync(join(group, 'tasks'), String(thread));
  } catch (error) {
    rmdirSync(group);
    throw error;
  }
  return group;
}

/** @param {number} thread */
async function byDeadlines(thread) {
  const period = String(EVEN_PERIOD_NANOSECONDS);
  const times = ['-T', String(EVEN_PERIOD_NANOSECONDS * PART), '-D', period, '-P', period];
  await run('chrt', ['--deadline', '--reset-on-fork', ...times, '--pid', '0', String(thread)]);
  return null;
}
