// Medians, ranges and ratios of what was measured, in words and as Markdown.
import { cpus, loadavg, release, totalmem } from 'node:os';

export function median(values) {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function spread(values) {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

const MEASURES = ['iops', 'megabytes', 'p50', 'p99', 'p999', 'cpuMicros'];

/** Both variants of one case; ratios are of each pair of neighbouring runs, first to second. */
export function summaryOf({ target, entry, variants, runs, syscalls, peaksKiB }) {
  const sides = variants.map((variant, index) => ({
    variant,
    ...Object.fromEntries(
      MEASURES.map((measure) => [measure, spread(runs[index].map((one) => one[measure]))]),
    ),
    syscalls: syscalls[index],
    peakMiB: peaksKiB[index] / 1024,
    runs: runs[index],
  }));
  const ratio = (measure) =>
    spread(runs[0].map((one, pair) => one[measure] / runs[1][pair][measure]));
  const speed = ratio('iops');
  const result = { target, case: entry, sides, speed, cpu: ratio('cpuMicros') };
  const [ours, other] = sides;
  result.words =
    `${target} ${entry.name}: ${number(ours.iops.median)} against ${number(other.iops.median)} ` +
    `IOPS, ${range(speed, 2)}x; CPU ${ours.cpuMicros.median.toFixed(1)} against ` +
    `${other.cpuMicros.median.toFixed(1)} µs an I/O; peak ${ours.peakMiB.toFixed(0)} MiB`;
  return result;
}

export const number = (value) =>
  value >= 10_000 ? `${(value / 1000).toFixed(1)}k` : value.toFixed(value < 100 ? 1 : 0);
export const range = (of, digits) =>
  `${of.median.toFixed(digits)} (${of.min.toFixed(digits)}–${of.max.toFixed(digits)})`;
const numbers = (of) => `${number(of.median)} (${number(of.min)}–${number(of.max)})`;

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

/** Markdown: a table a target, two lines a case. */
export function tableOf({ machine, load, plan, results }) {
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

export const row = (cells) => `| ${cells.join(' | ')} |`;

/** The one-minute load average includes the benchmark's own three processes once it runs. */
export function loadWords() {
  return loadavg()[0].toFixed(1);
}

export function machineWords() {
  const processors = cpus();
  const memory = Math.round(totalmem() / 2 ** 30);
  const model = processors[0]?.model.trim() ?? 'unknown';
  return `${processors.length} CPUs (${model}), ${memory} GiB, Linux ${release()}, Node ${process.version}`;
}
