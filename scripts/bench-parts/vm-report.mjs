// What scripts/bench-parts/vm measured as a Markdown table, on standard output or in the
// documentation.
import { readFileSync, writeFileSync } from 'node:fs';
import { loadWords, machineWords, number, range, row, spread } from './report.mjs';

const PAGE = 'docs/PERFORMANCE.md';

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

const isKernel = (variant) => variant.startsWith('open-iscsi');
const own = (of) =>
  `${of('userMicros').median.toFixed(0)} + ${of('systemMicros').median.toFixed(0)}`;
const millis = (of) => (of.median / 1000).toFixed(1);
const numbers = (of) => `${number(of.median)} (${number(of.min)}–${number(of.max)})`;
const bold = (ratio) => `**${range(ratio, 2)}**`;

const EMULATED = 'emulated with two processors (QEMU TCG)';
const USER_MODE = 'in user mode on one processor';

function tableOf({ kernel, isUserMode, variants, rounds, seconds, load, results }) {
  const lines = [];
  for (const target of new Set(results.map((result) => result.target))) {
    lines.push(`### Target: ${target}`, '', row(COLUMNS.map(([title]) => title)));
    lines.push(row(COLUMNS.map(() => '---')));
    for (const { case: name, runs } of results.filter((one) => one.target === target)) {
      for (const [index, variant] of variants.entries()) {
        const of = (key) => spread(runs[index].map((one) => one[key]));
        const ratio = spread(runs[0].map((one, round) => one.iops / runs[index][round].iops));
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
const measured = JSON.parse(readFileSync(file, 'utf8'));
const table = tableOf({ ...measured, load });
console.log(table);
if (docs === '--docs') {
  const name = measured.isUserMode ? 'vm-uml' : 'vm';
  const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
  const [before, rest] = readFileSync(PAGE, 'utf8').split(begin);
  const after = rest?.split(end)[1];
  if (after === undefined) throw new Error(`${PAGE} has no place for this table`);
  writeFileSync(PAGE, `${before}${begin}\n${table}${end}${after}`);
}
