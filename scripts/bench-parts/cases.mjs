/**
 * One fio job.
 * @typedef {object} BenchCase
 * @property {string} name
 * @property {string} rw
 * @property {string} bs
 * @property {number} depth
 * @property {number} [mix] reads in a hundred, of `randrw`
 * @property {boolean} [oneCpu] client, server and target share one processor
 * @property {number} atLeast the ratio of speeds the project wants
 */

/**
 * What is measured.
 * @type {readonly BenchCase[]}
 */
export const CASES = [
  { name: 'randread-4k-qd32', rw: 'randread', bs: '4k', depth: 32, atLeast: 2.7 },
  { name: 'randwrite-4k-qd32', rw: 'randwrite', bs: '4k', depth: 32, atLeast: 3 },
  { name: 'mixed-4k-qd32', rw: 'randrw', mix: 70, bs: '4k', depth: 32, atLeast: 2.7 },
  { name: 'read-256k-qd8', rw: 'randread', bs: '256k', depth: 8, atLeast: 2 },
  { name: 'write-256k-qd8', rw: 'randwrite', bs: '256k', depth: 8, atLeast: 2.3 },
  { name: 'randread-4k-qd1', rw: 'randread', bs: '4k', depth: 1, atLeast: 1.3 },
  { name: 'randread-4k-qd1-1cpu', rw: 'randread', bs: '4k', depth: 1, oneCpu: true, atLeast: 1.45 },
  {
    name: 'randwrite-4k-qd1-1cpu',
    rw: 'randwrite',
    bs: '4k',
    depth: 1,
    oneCpu: true,
    atLeast: 1.45,
  },
  { name: 'read-256k-qd128', rw: 'randread', bs: '256k', depth: 128, atLeast: 1.4 },
  { name: 'write-256k-qd128', rw: 'randwrite', bs: '256k', depth: 128, atLeast: 1.6 },
];

export const QUICK_CASES = [
  'randread-4k-qd32',
  'randwrite-4k-qd32',
  'mixed-4k-qd32',
  'read-256k-qd8',
  'write-256k-qd8',
  'randread-4k-qd1-1cpu',
];

/**
 * @param {string} name
 * @returns {BenchCase}
 */
export function caseNamed(name) {
  const found = CASES.find((entry) => entry.name === name);
  if (found === undefined) throw new Error(`there is no case ${name}`);
  return found;
}
