// node scripts/test-parts/summary.mjs FOLDER: adds up the steps of scripts/test. FOLDER/steps has a
// line `name status seconds` per step; FOLDER/<name>.json, if it exists, is vitest's report of
// it. The last line printed is `N passed, N failed`; the exit status is 1 when anything failed.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const folder = process.argv[2] ?? '.';
const skippedIsFailed = process.env['CI'] === 'true';
const total = { passed: 0, failed: 0 };

/**
 * What of vitest's report is used here.
 * @typedef {object} VitestReport
 * @property {number} numPassedTests
 * @property {number} numFailedTests
 * @property {number} numPendingTests
 * @property {number} numTodoTests
 * @property {{
 *   name: string,
 *   status: string,
 *   assertionResults: { status: string, fullName: string }[],
 * }[]} testResults
 */

/** @typedef {{ passed: number, failed: number, skipped: number, remarks: string[] }} Counts */

/**
 * Numbers of one report, and what in it is not as it should be.
 * @param {string} path
 * @returns {Counts}
 */
function countReport(path) {
  /** @type {VitestReport} */
  const report = JSON.parse(readFileSync(path, 'utf8'));
  const skipped = report.numPendingTests + report.numTodoTests;
  /** @type {string[]} */
  const remarks = [];
  let failed = report.numFailedTests;
  for (const file of report.testResults) {
    // A file that cannot even be loaded has no tests to count.
    const isBroken =
      file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed');
    if (isBroken) failed += 1;
    for (const test of file.assertionResults) {
      if (test.status === 'failed') remarks.push(`failed: ${test.fullName}`);
      if (test.status === 'pending' || test.status === 'skipped' || test.status === 'todo') {
        remarks.push(`skipped: ${test.fullName}`);
      }
    }
    if (isBroken) remarks.push(`failed: ${file.name}`);
  }
  if (skippedIsFailed) failed += skipped;
  return { passed: report.numPassedTests, failed, skipped, remarks };
}

console.log('');
for (const line of readFileSync(join(folder, 'steps'), 'utf8').trim().split('\n')) {
  const [name = '', status = '', seconds = ''] = line.split(' ');
  const path = join(folder, `${name}.json`);
  /** @type {Counts} */
  const counts = existsSync(path)
    ? countReport(path)
    : { passed: 0, failed: 0, skipped: 0, remarks: [] };
  // A step that fails without a failed test (a type error, a crash) is one failure.
  if (status !== '0' && counts.failed === 0) counts.failed = 1;
  total.passed += counts.passed;
  total.failed += counts.failed;
  const verdict = counts.failed === 0 ? 'ok' : 'FAILED';
  const numbers = existsSync(path)
    ? `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`
    : '';
  console.log(
    `${name.padEnd(8)} ${verdict.padEnd(7)} ${seconds.padStart(4)} s  ${numbers}`.trimEnd(),
  );
  for (const remark of counts.remarks) console.log(`           ${remark}`);
}
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exitCode = total.failed === 0 ? 0 : 1;
