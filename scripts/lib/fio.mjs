// What fio's JSON output says.

/**
 * Reads or writes of a job, as fio names its fields.
 * @typedef {object} FioSide
 * @property {number} total_ios
 * @property {number} iops
 * @property {number} bw_bytes
 * @property {{ percentile: Record<string, number> }} clat_ns
 */

/**
 * Of reads and writes together; latencies in microseconds are those of the slower of both.
 * @typedef {object} FioResult
 * @property {number} ios
 * @property {number} iops
 * @property {number} megabytes a second
 * @property {number} p50
 * @property {number} p99
 * @property {number} p999
 */

/**
 * The result of the first job in `--output-format=json`; an error names `what` if that has failed.
 * @param {string} stdout
 * @param {string} what
 * @returns {FioResult}
 */
export function fioResult(stdout, what) {
  /** @type {{ jobs: { error: number, read: FioSide, write: FioSide }[] }} */
  const report = JSON.parse(stdout.slice(stdout.indexOf('{')));
  const [job] = report.jobs;
  if (job === undefined) throw new Error(`fio ran no job on ${what}`);
  if (job.error !== 0) throw new Error(`fio failed on ${what}: error ${job.error}`);
  const sides = [job.read, job.write].filter((side) => side.total_ios > 0);
  /** @param {(side: FioSide) => number} of */
  const sum = (of) => sides.reduce((total, side) => total + of(side), 0);
  /** @param {string} share */
  const worst = (share) =>
    Math.max(...sides.map((side) => side.clat_ns.percentile[share] ?? Number.NaN)) / 1000;
  return {
    ios: sum((side) => side.total_ios),
    iops: sum((side) => side.iops),
    megabytes: sum((side) => side.bw_bytes) / 1e6,
    p50: worst('50.000000'),
    p99: worst('99.000000'),
    p999: worst('99.900000'),
  };
}
