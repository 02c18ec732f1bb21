// What many sessions and LUNs cost; see scripts/scale/run.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { loadWords, machineWords, number, row } from '../bench-parts/report.mjs';
import { putIntoPage } from '../lib/performance-page.mjs';
import { many } from './many.mjs';
import { fio, startDaemon, startServe, startTarget } from './processes.mjs';
import { interleaved, mebibytes, tableOf } from './rounds.mjs';
import { evenWorkers, fullWorkers, slowWorkers } from './workers.mjs';

/** @import { MemoryUse, ScaleDaemon } from './processes.mjs' */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    'fast-target': { type: 'string' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '3' },
    ios: { type: 'string', default: '10000000' },
    docs: { type: 'boolean' },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-scale-'));
/** What the parts in files of their own are given. */
const plan = { folder, fastTarget: values['fast-target'], rounds, seconds };
/** What has rounds of its own, or none. */
const UNTIMED = ['memory', 'long', 'many'];

/** @type {Readonly<Record<string, () => Promise<string[]>>>} */
const parts = {
  memory,
  load,
  processes,
  long,
  'slow-workers': () => slowWorkers(plan),
  'even-workers': () => evenWorkers(plan),
  'full-workers': () => fullWorkers(plan),
  many: () => many(plan),
};

/** One process with more and more LUNs, and one with more and more sessions. */
async function memory() {
  const target = await startTarget(values['fast-target'], 64);
  const lines = [row(['', 'RSS MiB', 'PSS MiB', 'heap MiB', 'each: PSS KiB', 'heap KiB'])];
  lines.push(row(['---', '---', '---', '---', '---', '---']));
  /**
   * @param {string} words
   * @param {MemoryUse} usage
   * @param {MemoryUse} base what is there without the `count`
   * @param {number} count
   */
  const line = (words, usage, base, count) => {
    /** @param {'pss' | 'heap'} key */
    const each = (key) => ((usage[key] - base[key]) / 1024 / count).toFixed(0);
    const sizes = [usage.rss, usage.pss, usage.heap].map(mebibytes);
    const shares = count === 0 ? ['', ''] : [each('pss'), each('heap')];
    lines.push(row([words, ...sizes, ...shares]));
  };
  const one = await startServe(folder, target, { name: 'one', lun: 1 });
  const all = await startServe(folder, target, { name: 'all' });
  const base = await one.memory();
  line('1 LUN', base, base, 0);
  line('64 LUNs', await all.memory(), base, 63);
  await one.stop();
  await all.stop();
  const daemon = await startDaemon(folder, target, 'many');
  const empty = await daemon.memory();
  line('daemon without sessions', empty, empty, 0);
  let count = 0;
  for (const wanted of [1, 50, 200]) {
    for (; count < wanted; count += 1) await daemon.login();
    line(`${wanted} sessions of one LUN`, await daemon.memory(), empty, wanted);
  }
  await daemon.stop();
  await target.stop();
  return lines;
}

/** The same load on one LUN or on many, in a process that has one or many. */
async function load() {
  const target = await startTarget(values['fast-target'], 64);
  const one = await startServe(folder, target, { name: 'one', lun: 1 });
  const all = await startServe(folder, target, { name: 'all' });
  const every = Array.from({ length: 64 }, (_, lun) => all.uri(lun));
  const cases = [
    { words: '1 LUN, queue of 64', server: one, uris: [one.uri(1)], depth: 64 },
    { words: '64 LUNs, 63 idle, queue of 64', server: all, uris: [all.uri(1)], depth: 64 },
    { words: '64 LUNs, queue of 1 on each', server: all, uris: every, depth: 1 },
    { words: '64 LUNs, queue of 8 on each', server: all, uris: every, depth: 8 },
  ];
  const measured = await interleaved(plan, cases, (one, runSeconds) =>
    fio(one.uris, [one.server], {
      rw: 'randread',
      bs: '4k',
      depth: one.depth,
      seconds: runSeconds,
    }),
  );
  const lines = tableOf(measured);
  lines.push(
    '',
    `Peak memory: ${mebibytes(one.peak())} MiB with one LUN, ` +
      `${mebibytes(all.peak())} MiB with 64.`,
  );
  await one.stop();
  await all.stop();
  await target.stop();
  return lines;
}

/** Four LUNs of four sessions: one process, two, or four. */
async function processes() {
  const target = await startTarget(values['fast-target'], 2);
  /**
   * @param {readonly string[]} names one daemon each
   * @param {number} logins of each
   */
  const daemons = async (names, logins) => {
    /** @type {ScaleDaemon[]} */
    const made = [];
    for (const name of names) {
      const daemon = await startDaemon(folder, target, name);
      made.push(daemon);
      for (let count = 0; count < logins; count += 1) await daemon.login();
    }
    return made;
  };
  const four = ['four-0', 'four-1', 'four-2', 'four-3'];
  const groups = [
    { words: 'one process', servers: await daemons(['one'], 4) },
    { words: 'two processes', servers: await daemons(['two-a', 'two-b'], 2) },
    { words: 'four processes', servers: await daemons(four, 1) },
  ];
  const loads = [
    { rw: 'randread', bs: '4k', depth: 1 },
    { rw: 'randread', bs: '4k', depth: 16 },
    { rw: 'randread', bs: '256k', depth: 4 },
  ];
  /** @type {string[]} */
  const lines = [];
  for (const job of loads) {
    const words = `${job.bs} ${job.rw}, queue of ${job.depth} on each`;
    const cases = groups.map((group) => ({ ...group, words: `${group.words}: ${words}` }));
    const measured = await interleaved(plan, cases, ({ servers }, runSeconds) => {
      const uris = servers.flatMap((server) => server.uris());
      return fio(uris, servers, { ...job, seconds: runSeconds });
    });
    lines.push(...tableOf(measured).slice(lines.length === 0 ? 0 : 2));
  }
  /** @type {string[]} */
  const shares = [];
  for (const { words, servers } of groups) {
    let pss = 0;
    for (const server of servers) pss += (await server.memory()).pss;
    shares.push(`${mebibytes(pss)} MiB in ${words}`);
    for (const server of servers) await server.stop();
  }
  lines.push('', `Memory (PSS): ${shares.join(', ')}.`);
  await target.stop();
  return lines;
}

/** The heap and the memory of one process while it does ten million I/Os. */
async function long() {
  const target = await startTarget(values['fast-target'], 2);
  const server = await startServe(folder, target, { name: 'long', lun: 1 });
  const total = Number(values.ios);
  const lines = [row(['I/Os', 'heap KiB', 'RSS MiB', 'PSS MiB', 'IOPS'])];
  lines.push(row(['---', '---', '---', '---', '---']));
  const job = { rw: 'randrw', bs: '4k', depth: 32 };
  let done = (await fio([server.uri(1)], [server], { ...job, ios: total / 100 })).ios;
  for (const share of [0.01, 0.1, 0.25, 0.5, 0.75, 1]) {
    const left = Math.round(total * share) - done;
    const part = left > 0 ? await fio([server.uri(1)], [server], { ...job, ios: left }) : null;
    done += part?.ios ?? 0;
    const { heap, rss, pss } = await server.memory();
    const speed = part === null ? '' : number(part.iops);
    const words = [(heap / 1024).toFixed(0), mebibytes(rss), mebibytes(pss), speed];
    lines.push(row([done.toLocaleString('en'), ...words]));
    process.stderr.write(`${lines.at(-1)}\n`);
  }
  await server.stop();
  await target.stop();
  return lines;
}

try {
  for (const name of positionals.length > 0 ? positionals : Object.keys(parts)) {
    const part = parts[name];
    if (part === undefined) throw new Error(`there is no ${name}`);
    const before = loadWords();
    const lines = await part();
    const how = UNTIMED.includes(name)
      ? ''
      : `Medians of ${rounds} interleaved rounds of ${seconds} s; `;
    const load = `load average ${before} before and ${loadWords()} after.`;
    const text = [...lines, '', `${how}${machineWords()}; ${load}`].join('\n');
    console.log(`${text}\n`);
    if (values.docs) putIntoPage(`scale-${name}`, `${text}\n`);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
