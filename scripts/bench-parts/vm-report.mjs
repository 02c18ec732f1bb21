// What scripts/bench-parts/vm measured as a Markdown table, on standard output or in the
// documentation.
import { readFileSync } from 'node:fs';
import { putIntoPage } from '../lib/performance-page.mjs';
import { loadWords, machineWords, number, numbers, range, row, spread } from './report.mjs';

/** @import { Spread } from './report.mjs' */
/** @import { DiskMeasure, DiskMeasurements } from './vm-guest.mjs' */

/** @typedef {(measure: DiskMeasure) => Spread} SpreadOf */
/** @typedef {{ name: string, index: number, variant: string, of: SpreadOf, ratio: Spread }} Line */

/** @type {[title: string, cell: (line: Line) => string][]} */
const COLUMNS = [
  ['case', ({ name, index }) => (index === 0 ? name : '')],
  ['', ({ variant }) => variant],
  ['IOPS', ({ of }) => numbers(of('iops'))],
  ['MB/s', ({ of }) => number(of('megabytes').median)],
  ['p50 / p99 ms', ({ of }) => `${millis(of('p50'))} / ${millis(of('p99'))}`],
  ['its CPU µs/I/O', ({ of, variant }) => (isKernel(variant) ? '' : own(of))],
  ['machine CPU µs/I/O', ({ of }) => of('machineMicros').median.toFixed(0)],
  ['speed of the first against it', ({ ratio, index }) => (index === 0 ? '' : bold(ratio))],
];

/** @param {string} variant */
const isKernel = (variant) => variant.startsWith('open-iscsi');
/** @param {SpreadOf} of */
const own = (of) =>
  `${of('userMicros').median.toFixed(0)} + ${of('systemMicros').median.toFixed(0)}`;
/** @param {Spread} of */
const millis = (of) => (of.median / 1000).toFixed(1);
/** @param {Spread} ratio */
const bold = (ratio) => `**${range(ratio, 2)}**`;

const EMULATED = 'emulated with two processors (QEMU TCG)';
const USER_MODE = 'in user mode on one processor';

/**
 * @param {DiskMeasurements} measured
 * @param {string} load before it
 */
function tableOf({ kernel, isUserMode, variants, rounds, seconds, results }, load) {
  /** @type {string[]} */
  const lines = [];
  for (const target of new Set(results.map((result) => result.target))) {
    lines.push(`### Target: ${target}`, '', row(COLUMNS.map(([title]) => title)));
    lines.push(row(COLUMNS.map(() => '---')));
    for (const { case: name, runs } of results.filter((one) => one.target === target)) {
      const [firstRuns = []] = runs;
      for (const [index, variant] of variants.entries()) {
        const ownRuns = runs[index] ?? [];
        /** @type {SpreadOf} */
        const of = (measure) => spread(ownRuns.map((one) => one[measure]));
        const ratio = spread(
          firstRuns.map((one, round) => one.iops / (ownRuns[round]?.iops ?? Number.NaN)),
        );
        const facts = { name, index, variant, of, ratio };
        lines.push(row(COLUMNS.map(([, cell]) => cell(facts))));
      }
    }
    lines.push('');
  }
  lines.push(
    `Medians (min–max) of ${rounds} interleaved rounds of ${seconds} s; CPU of a process is user + ` +
      `system. Linux ${kernel}, ${isUserMode ? USER_MODE : EMULATED} on ${machineWords()}; load ` +
      `average of that machine ${load} before and ${loadWords()} after.`,
    '',
  );
  return lines.join('\n');
}

const [file, load, docs] = process.argv.slice(2);
if (file === undefined || load === undefined) throw new Error('usage: FILE LOAD [--docs]');
/** @type {DiskMeasurements} */
const measured = JSON.parse(readFileSync(file, 'utf8'));
const table = tableOf(measured, load);
console.log(table);
if (docs === '--docs') putIntoPage(measured.isUserMode ? 'vm-uml' : 'vm', table);
