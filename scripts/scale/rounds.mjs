// Interleaved rounds of scripts/scale/run and their table.
import { median, number, row, spread } from '../bench-parts/report.mjs';

/** @import { FioSum } from './processes.mjs' */

/**
 * @typedef {object} ScalePlan
 * @property {string} folder
 * @property {string | undefined} fastTarget
 * @property {number} rounds
 * @property {number} seconds
 */

/**
 * Every case once a round, after one run that does not count; the runs of each.
 * @template {{ words: string }} Case
 * @template {FioSum} Run
 * @param {Pick<ScalePlan, 'rounds' | 'seconds'>} plan
 * @param {readonly Case[]} cases
 * @param {(entry: Case, runSeconds: number) => Promise<Run>} measure
 */
export async function interleaved({ rounds, seconds }, cases, measure) {
  const measured = cases.map((entry) => ({ entry, runs: /** @type {Run[]} */ ([]) }));
  for (const entry of cases) await measure(entry, 1);
  for (let round = 0; round < rounds; round += 1) {
    for (const { entry, runs } of measured) {
      const run = await measure(entry, seconds);
      runs.push(run);
      process.stderr.write(`${entry.words}: ${number(run.iops)} IOPS\n`);
    }
  }
  return measured.map(({ entry, runs }) => ({ words: entry.words, runs }));
}

/**
 * The median and the range.
 * @param {readonly number[]} parts
 */
export function partsWords(parts) {
  const of = spread(parts);
  return `**${of.median.toFixed(2)}** (${of.min.toFixed(2)}–${of.max.toFixed(2)})`;
}

/** @param {number} bytes */
export const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(1);

/**
 * Ratios are those of each round to the first case's run in it.
 * @param {readonly { words: string, runs: readonly FioSum[] }[]} measured
 */
export function tableOf(measured) {
  const titles = ['', 'IOPS', 'MB/s', 'p99 µs', 'CPU µs/I/O', 'speed ratio'];
  const lines = [row(titles), row(titles.map(() => '---'))];
  const first = measured[0]?.runs ?? [];
  for (const { words, runs } of measured) {
    /** @param {keyof FioSum} key */
    const of = (key) => median(runs.map((one) => one[key]));
    const ratios = runs.map((one, round) => one.iops / (first[round]?.iops ?? Number.NaN));
    const ratio = runs === first ? '1' : partsWords(ratios);
    const figures = [number(of('megabytes')), of('p99').toFixed(0), of('cpuMicros').toFixed(1)];
    lines.push(row([words, number(of('iops')), ...figures, ratio]));
  }
  return lines;
}
