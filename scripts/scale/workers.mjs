// Eight sessions in one daemon with several numbers of workers: slow ones, and with whole processors.
import { mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { median } from '../bench-parts/report.mjs';
import { fio, startDaemon, startTarget, threadMs } from './processes.mjs';
import { interleaved, tableOf } from './rounds.mjs';

/** @import { ScaleDaemon } from './processes.mjs' */
/** @import { ScalePlan } from './rounds.mjs' */

const SESSIONS = 8;
const PERIOD_MICROSECONDS = 100_000;
/** Of a processor, for each worker. */
const QUOTA = 0.05;
const SHARES = 100_000;
/** Version 1: there a thread can be alone in a group. */
const GROUPS = '/sys/fs/cgroup/cpu';
const JOB = { rw: 'randread', bs: '4k', depth: 16 };
/** In which V8 compiles what the load needs. */
const WARM_SECONDS = 4;

/**
 * Each worker alone in a cgroup with a part of a processor, so that eight of them are eight slow
 * processors. Target, load and the other threads of the daemon have the rest of the machine.
 * @param {ScalePlan} plan
 */
export function slowWorkers(plan) {
  return measured(plan, [1, 2, 4, 8], slowDown);
}

/**
 * One worker and two, with all processors of the machine for them, the target and the load.
 * @param {ScalePlan} plan
 */
export function fullWorkers(plan) {
  return measured(plan, [1, 2], () => null);
}

/**
 * @param {ScalePlan} plan
 * @param {readonly number[]} counts
 * @param {(thread: number) => string | null} prepare
 */
async function measured(plan, counts, prepare) {
  const target = await startTarget(plan.fastTarget, 2);
  /** @type {{ words: string, count: number, daemon: ScaleDaemon }[]} */
  const cases = [];
  /** @type {string[]} */
  const groups = [];
  try {
    for (const count of counts) {
      const daemon = await startDaemon(plan.folder, target, `w${count}`, ['--workers', `${count}`]);
      cases.push({ words: `${count} worker${count > 1 ? 's' : ''}`, count, daemon });
      await logIn(daemon, count);
      await fio(daemon.uris(), [daemon], { ...JOB, seconds: WARM_SECONDS });
      for (let worker = 0; worker < count; worker += 1) {
        const group = prepare(daemon.threadOf(worker));
        if (group !== null) groups.push(group);
      }
    }
    const runs = await interleaved(plan, cases, async (entry, seconds) => {
      const [begin, before] = [performance.now(), workerMs(entry)];
      const run = await fio(entry.daemon.uris(), [entry.daemon], { ...JOB, seconds });
      const ofOne = (workerMs(entry) - before) / (performance.now() - begin) / entry.count;
      return { ...run, ofOne };
    });
    const lines = tableOf(runs);
    if (groups.length === 0) return lines;
    return [...lines, '', linearWords(counts, runs), usedWords(counts, runs)];
  } finally {
    for (const { daemon } of cases) await daemon.stop();
    await target.stop();
    for (const group of groups) rmdirSync(group);
  }
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

/**
 * What all workers have had of a processor so far.
 * @param {{ count: number, daemon: ScaleDaemon }} which
 */
function workerMs({ count, daemon }) {
  let sum = 0;
  for (let worker = 0; worker < count; worker += 1) {
    sum += threadMs(daemon.pid, daemon.threadOf(worker));
  }
  return sum;
}

/** @param {number} thread */
function slowDown(thread) {
  const group = join(GROUPS, `iscsi-nbd-worker-${thread}`);
  mkdirSync(group);
  writeFileSync(join(group, 'cpu.cfs_period_us'), String(PERIOD_MICROSECONDS));
  writeFileSync(join(group, 'cpu.cfs_quota_us'), String(PERIOD_MICROSECONDS * QUOTA));
  // The quota is to be the only limit, not the load of the machine.
  writeFileSync(join(group, 'cpu.shares'), String(SHARES));
  writeFileSync(join(group, 'tasks'), String(thread));
  return group;
}

/**
 * @param {readonly number[]} counts
 * @param {readonly { runs: readonly { iops: number }[] }[]} measured
 */
function linearWords(counts, measured) {
  const [first] = measured;
  const parts = counts.slice(1).map((count, index) => {
    const runs = measured[index + 1]?.runs ?? [];
    const shares = runs.map(({ iops }, round) => iops / (first?.runs[round]?.iops ?? 0) / count);
    return `${median(shares).toFixed(2)} with ${count}`;
  });
  return `Part of linear, in the median: ${parts.join(', ')}.`;
}

/**
 * @param {readonly number[]} counts
 * @param {readonly { runs: readonly { ofOne: number }[] }[]} measured
 */
function usedWords(counts, measured) {
  const parts = measured.map(({ runs }, index) => {
    const used = median(runs.map(({ ofOne }) => ofOne));
    return `${(used * 100).toFixed(1)} % with ${counts[index]}`;
  });
  return `Of a processor, each worker used: ${parts.join(', ')}.`;
}
