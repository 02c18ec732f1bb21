// What scripts/bench-parts/vm runs inside of the VM. For each target the same LUN is there as a
// block device of every initiator at once, and the same fio job goes to one after the other, round
// after round; what is compared is the ratio within a round.
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { fioResult } from '../lib/fio.mjs';
import { DISK_MEBIBYTES, prepare, run, startDisk, startTarget } from './vm-disks.mjs';

/** @import { ComparedDisk } from './vm-disks.mjs' */

/** @typedef {{ name: string, rw: string, bs: string, depth: string }} DiskCase */

/**
 * @typedef {'iops' | 'megabytes' | 'p50' | 'p99' | 'userMicros' | 'systemMicros' | 'machineMicros'
 * } DiskMeasure
 */

/** @typedef {Record<DiskMeasure, number>} DiskRun */

/**
 * `runs` has a list for each variant, in their order.
 * @typedef {{ target: string, case: string, runs: DiskRun[][] }} DiskResult
 */

/**
 * @typedef {object} DiskMeasurements
 * @property {string} kernel
 * @property {boolean} isUserMode
 * @property {string[]} variants
 * @property {number} rounds
 * @property {number} seconds
 * @property {DiskResult[]} results
 */

// scripts/bench-parts/vm gives all of them.
const { values } = parseArgs({
  options: {
    targets: { type: 'string', default: '' },
    variants: { type: 'string', default: '' },
    cases: { type: 'string', default: '' },
    rounds: { type: 'string', default: '' },
    seconds: { type: 'string', default: '' },
    'fast-target': { type: 'string', default: '' },
    'warm-up': { type: 'string', default: '' },
  },
});
const variants = values.variants.split(',');
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
/** Kernel clock ticks a second in /proc; USER_HZ is 100 on every Linux we run on. */
const TICKS = 100;
/** After so many the speed of a fresh process grows no more. */
const WARM_UP_IOS = 15_000;

/**
 * `randread-4k-32`
 * @param {string} name
 * @returns {DiskCase}
 */
function caseOf(name) {
  const [rw, bs, depth] = name.split('-');
  if (rw === undefined || bs === undefined || depth === undefined) {
    throw new Error(`${name} is no kind-size-depth`);
  }
  return { name, rw, bs, depth };
}

/** Time that any processor was busy, in ticks. */
function machineTicks() {
  // cpu user nice system idle iowait irq softirq …: proc_stat(5).
  const [, user, nice, system, , , irq, softirq] = readFileSync('/proc/stat', 'utf8').split(/\s+/);
  return [user, nice, system, irq, softirq].map(Number).reduce((sum, ticks) => sum + ticks);
}

/**
 * @param {ComparedDisk} disk
 * @param {DiskCase} entry
 * @param {number} runSeconds
 * @param {readonly string[]} more
 * @returns {Promise<DiskRun>}
 */
async function fio(disk, { rw, bs, depth }, runSeconds, more = ['--time_based']) {
  const argv = [
    '--name=bench',
    '--thread',
    `--filename=${disk.device}`,
    '--direct=1',
    '--ioengine=libaio',
    `--rw=${rw === 'mixed' ? 'randrw' : rw}`,
    ...(rw === 'mixed' ? ['--rwmixread=70'] : []),
    `--bs=${bs}`,
    `--iodepth=${depth}`,
    `--size=${DISK_MEBIBYTES}m`,
    ...more,
    `--runtime=${runSeconds}`,
    '--norandommap',
    '--randrepeat=0',
    '--output-format=json',
  ];
  const before = { own: disk.cpuTicks(), machine: machineTicks() };
  const { stdout } = await run('fio', argv, { maxBuffer: 1 << 26 });
  const own = disk.cpuTicks();
  const machine = machineTicks();
  const { ios, iops, megabytes, p50, p99 } = fioResult(stdout, disk.variant);
  /** @param {number} ticks */
  const microsOf = (ticks) => (ticks / TICKS / ios) * 1e6;
  return {
    iops,
    megabytes,
    p50,
    p99,
    userMicros: microsOf(own.user - before.own.user),
    systemMicros: microsOf(own.system - before.own.system),
    machineMicros: microsOf(machine - before.machine),
  };
}

/**
 * @param {string} targetName
 * @returns {Promise<DiskResult[]>}
 */
async function measure(targetName) {
  const target = await startTarget(targetName, { fastTarget: values['fast-target'] });
  /** @type {ComparedDisk[]} */
  const disks = [];
  for (const [index, variant] of variants.entries()) {
    const disk = await startDisk(variant, target, index);
    disks.push(disk);
    console.error(`${targetName} ${variant}: ${disk.device}, ${disk.queue}`);
  }
  // V8 compiles what has run often enough, which takes an emulated processor a while.
  for (const disk of disks) {
    if (!disk.variant.startsWith('ours')) continue;
    const limit = [`--number_ios=${WARM_UP_IOS}`];
    await fio(disk, caseOf('mixed-4k-32'), Number(values['warm-up']), limit);
  }
  /** @type {DiskResult[]} */
  const results = [];
  for (const entry of values.cases.split(',').map(caseOf)) {
    // What is not measured: compiled code, grown socket buffers, touched pages.
    for (const disk of disks) await fio(disk, entry, Math.min(1, seconds));
    const sides = disks.map((disk) => ({ disk, runs: /** @type {DiskRun[]} */ ([]) }));
    for (let round = 0; round < rounds; round += 1) {
      const first = round % sides.length;
      for (const { disk, runs } of [...sides.slice(first), ...sides.slice(0, first)]) {
        runs.push(await fio(disk, entry, seconds));
      }
    }
    results.push({ target: targetName, case: entry.name, runs: sides.map(({ runs }) => runs) });
    const words = sides.map(({ disk, runs }) => sideWords(disk.variant, runs));
    console.error(`${targetName} ${entry.name}: ${words.join(' | ')}`);
  }
  for (const disk of disks) {
    await disk.stop().catch((error) => console.error(`${disk.variant}: ${error.message}`));
  }
  return results;
}

/**
 * The speed of every run, and the processor time of the last.
 * @param {string} variant
 * @param {readonly DiskRun[]} runs
 */
function sideWords(variant, runs) {
  const speeds = runs.map(({ iops }) => iops.toFixed(0)).join(' ');
  const last = runs.at(-1);
  if (last === undefined) return `${variant} not measured`;
  const micros = [last.userMicros, last.systemMicros, last.machineMicros];
  return `${variant} ${speeds}, CPU ${micros.map((value) => value.toFixed(0)).join('+')} µs`;
}

await prepare();
/** @type {DiskResult[]} */
const results = [];
for (const name of values.targets.split(',')) results.push(...(await measure(name)));
const kernel = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
const isUserMode = readFileSync('/proc/cpuinfo', 'utf8').includes('User Mode Linux');
/** @type {DiskMeasurements} */
const done = { kernel, isUserMode, variants, rounds, seconds, results };
writeFileSync('/results/bench-vm.json', `${JSON.stringify(done, null, 1)}\n`);
// Nothing of the machine is worth taking down: it is thrown away.
process.exit(0);
