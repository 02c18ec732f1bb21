// fault-table.mjs FOLDER [--docs]: the table of scripts/test-parts/fault-matrix, printed or put into
// docs/COMPARISON.md.
import { readdirSync, readFileSync } from 'node:fs';
import { putIntoPage } from '../lib/performance-page.mjs';

/**
 * @typedef {{ fault: string, name: string, raw: string, files: string, rawSeconds: number,
 *   filesSeconds: number, remark: string }} Seen
 */

const NAMES = ['iscsi-nbd', 'qemu-nbd', 'open-iscsi'];
const [folder = '', docs] = process.argv.slice(2);

/**
 * @param {string} outcome
 * @param {number} seconds
 */
const words = (outcome, seconds) => (outcome === 'ok' ? seconds.toFixed(1) : `**${outcome}**`);

/** @param {Seen | undefined} seen */
function cell(seen) {
  if (seen === undefined) return 'not measured';
  const { raw, rawSeconds, files, filesSeconds, remark } = seen;
  const both = `${words(raw, rawSeconds)}; ${words(files, filesSeconds)}`;
  return remark === '' ? both : `${both}; ${remark}`;
}

const numbers = readdirSync(folder)
  .flatMap((name) => /^(\d+)\.jsonl$/.exec(name)?.[1] ?? [])
  .sort((left, right) => Number(left) - Number(right));
const lines = [`| fault | ${NAMES.join(' | ')} |`, '|---|---|---|---|'];
for (const number of numbers) {
  /** @type {Seen[]} */
  const all = readFileSync(`${folder}/${number}.jsonl`, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const cells = NAMES.map((name) => cell(all.find((seen) => seen.name === name)));
  lines.push(`| ${[all[0]?.fault, ...cells].join(' | ')} |`);
}
const table = `${lines.join('\n')}\n`;
if (docs === undefined) process.stdout.write(table);
else putIntoPage('faults', table, 'COMPARISON.md');
