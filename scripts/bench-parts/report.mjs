// Medians, ranges and ratios of what was measured, in words and as Markdown.
import { cpus, loadavg, release, totalmem } from 'node:os';

/** @import { BenchCase } from './cases.mjs' */
/** @import { BenchRun, Syscalls } from './processes.mjs' */

/**
 * The first is compared with the second.
 * @template T
 * @typedef {[T, T]} Pair
 */

/** @typedef {{ median: number, min: number, max: number }} Spread */

/**
 * One of the two servers on one case.
 * @typedef {object} MeasuredSide
 * @property {string} variant
 * @property {BenchRun[]} runs
 * @property {Syscalls | null} syscalls
 * @property {number} peakKiB
 */

/** @typedef {'iops' | 'megabytes' | 'p50' | 'p99' | 'p999' | 'cpuMicros'} Measure */

/**
 * @typedef {Record<Measure, Spread> & {
 *   variant: string,
 *   syscalls: Syscalls | null,
 *   peakMiB: number,
 *   runs: BenchRun[],
 * }} SideSummary
 */

/**
 * Ratios are of each pair of neighbouring runs, first to second.
 * @typedef {object} BenchResult
 * @property {string} target
 * @property {BenchCase} case
 * @property {Pair<SideSummary>} sides
 * @property {Spread} speed
 * @property {Spread} cpu
 * @property {string} words
 */

/** @param {readonly number[]} values */
export function median(values) {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/**
 * @param {readonly number[]} values
 * @returns {Spread}
 */
export function spread(values) {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/**
 * @param {MeasuredSide} side
 * @returns {SideSummary}
 */
function sideSummary({ variant, runs, syscalls, peakKiB }) {
  /** @param {Measure} measure */
  const of = (measure) => spread(runs.map((one) => one[measure]));
  return {
    variant,
    iops: of('iops'),
    megabytes: of('megabytes'),
    p50: of('p50'),
    p99: of('p99'),
    p999: of('p999'),
    cpuMicros: of('cpuMicros'),
    syscalls,
    peakMiB: peakKiB / 1024,
    runs,
  };
}

/**
 * Both variants of one case.
 * @param {{ target: string, entry: BenchCase, sides: Pair<MeasuredSide> }} measured
 * @returns {BenchResult}
 */
export function summaryOf({ target, entry, sides }) {
  const ours = sideSummary(sides[0]);
  const other = sideSummary(sides[1]);
  /** @param {Measure} measure */
  const ratio = (measure) =>
    spread(
      ours.runs.map((one, pair) => one[measure] / (other.runs[pair]?.[measure] ?? Number.NaN)),
    );
  const [speed, cpu] = [ratio('iops'), ratio('cpuMicros')];
  const words =
    `${target} ${entry.name}: ${number(ours.iops.median)} against ${number(other.iops.median)} ` +
    `IOPS, ${range(speed, 2)}x; CPU ${ours.cpuMicros.median.toFixed(1)} against ` +
    `${other.cpuMicros.median.toFixed(1)} µs an I/O; peak ${ours.peakMiB.toFixed(0)} MiB`;
  return { target, case: entry, sides: [ours, other], speed, cpu, words };
}

/** @param {number} value */
export const number = (value) =>
  value >= 10_000 ? `${(value / 1000).toFixed(1)}k` : value.toFixed(value < 100 ? 1 : 0);
/**
 * @param {Spread} of
 * @param {number} digits
 */
export const range = (of, digits) =>
  `${of.median.toFixed(digits)} (${of.min.toFixed(digits)}–${of.max.toFixed(digits)})`;
/** @param {Spread} of */
export const numbers = (of) => `${number(of.median)} (${number(of.min)}–${number(of.max)})`;

/** @type {[title: string, cell: (result: BenchResult, side: SideSummary, index: number) => string][]} */
const COLUMNS = [
  ['case', (result) => result.case.name],
  ['', (_result, side) => side.variant],
  ['IOPS', (_result, side) => numbers(side.iops)],
  ['MB/s', (_result, side) => number(side.megabytes.median)],
  [
    'p50 / p99 / p99.9 µs',
    (_result, side) =>
      [side.p50, side.p99, side.p999].map((of) => of.median.toFixed(0)).join(' / '),
  ],
  ['CPU µs/I/O', (_result, side) => side.cpuMicros.median.toFixed(1)],
  ['syscalls/I/O', (_result, side) => side.syscalls?.perIo.toFixed(2) ?? ''],
  ['peak MiB', (_result, side) => side.peakMiB.toFixed(0)],
  ['speed ratio', (result, _side, index) => (index === 0 ? `**${range(result.speed, 2)}**` : '')],
  ['CPU ratio', (result, _side, index) => (index === 0 ? result.cpu.median.toFixed(2) : '')],
];

/**
 * Markdown: a table a target, two lines a case.
 * @param {object} run
 * @param {string} run.machine
 * @param {{ before: string, after: string }} run.load
 * @param {{ pairs: number, seconds: number }} run.plan
 * @param {readonly BenchResult[]} run.results
 */
export function tableOf({ machine, load, plan, results }) {
  /** @type {string[]} */
  const lines = [];
  for (const target of new Set(results.map((result) => result.target))) {
    lines.push(`### Target: ${target}`, '', row(COLUMNS.map(([title]) => title)));
    lines.push(row(COLUMNS.map(() => '---')));
    for (const result of results.filter((one) => one.target === target)) {
      for (const [index, side] of result.sides.entries()) {
        lines.push(row(COLUMNS.map(([, cell]) => cell(result, side, index))));
      }
    }
    lines.push('');
  }
  const { pairs, seconds } = plan;
  lines.push(
    `Medians (min–max) of ${pairs} interleaved pairs of ${seconds} s; ${machine}; ` +
      `load average ${load.before} before and ${load.after} after.`,
    '',
  );
  return lines.join('\n');
}

/** @param {readonly string[]} cells */
export const row = (cells) => `| ${cells.join(' | ')} |`;

/** The one-minute load average includes the benchmark's own three processes once it runs. */
export function loadWords() {
  const [lastMinute = Number.NaN] = loadavg();
  return lastMinute.toFixed(1);
}

export function machineWords() {
  const processors = cpus();
  const memory = Math.round(totalmem() / 2 ** 30);
  const model = processors[0]?.model.trim() ?? 'unknown';
  return `${processors.length} CPUs (${model}), ${memory} GiB, Linux ${release()}, Node ${process.version}`;
}
