// Interleaved pairs of whole processes: for each case both servers run side by side on the same
// target, and the same fio job goes to the one and to the other in turn. What is compared is the
// ratio within each pair, so that a machine that is busy with other things disturbs both alike.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { putIntoPage } from '../lib/performance-page.mjs';
import { CASES, caseNamed, QUICK_CASES } from './cases.mjs';
import { plotOf } from './plot.mjs';
import { runFio, startServer, startTarget, syscallsDuring } from './processes.mjs';
import { loadWords, machineWords, summaryOf, tableOf } from './report.mjs';

/** @import { BenchCase } from './cases.mjs' */
/** @import { BenchServer } from './processes.mjs' */
/** @import { BenchResult, MeasuredSide, Pair } from './report.mjs' */

/**
 * @typedef {object} BenchPlan
 * @property {readonly BenchCase[]} cases
 * @property {Pair<string>} variants
 * @property {number} pairs
 * @property {number} seconds
 * @property {boolean} syscalls
 * @property {string | undefined} fastTarget
 */

const HELP = `usage: scripts/bench [options]
  --quick            fewer cases, shorter and fewer runs
  --target NAMES     fast, fast-cache, tgt, comma separated       [fast,tgt]
  --pair A,B         what is compared: ours, ours+digests, ours+paths (two sessions),
                     ours+unretained (no retained writes), ours@DIST_FOLDER, qemu-nbd
                                                                  [ours,qemu-nbd]
  --cases NAMES      ${CASES.map((entry) => entry.name).join(' ')}
  --pairs N          pairs of runs a case                         [5]
  --seconds S        length of one run                            [3]
  --no-syscalls      without the run under strace
  --json FILE        everything measured, as JSON
  --table FILE       the tables, as Markdown
  --plot FILE        the ratios, as SVG
  --docs NAME        table and plot into docs/PERFORMANCE.md, where it names NAME`;

const options = /** @type {const} */ ({
  help: { type: 'boolean' },
  quick: { type: 'boolean' },
  target: { type: 'string', default: 'fast,tgt' },
  pair: { type: 'string', default: 'ours,qemu-nbd' },
  cases: { type: 'string' },
  pairs: { type: 'string' },
  seconds: { type: 'string' },
  'no-syscalls': { type: 'boolean' },
  json: { type: 'string' },
  table: { type: 'string' },
  plot: { type: 'string' },
  docs: { type: 'string' },
  'fast-target': { type: 'string' },
});

async function main() {
  const { values } = parseArgs({ options });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const names = values.cases?.split(',') ?? (values.quick ? QUICK_CASES : null);
  /** @type {BenchPlan} */
  const plan = {
    cases: names === null ? CASES : names.map(caseNamed),
    variants: pairOf(values.pair),
    pairs: Number(values.pairs ?? (values.quick ? 3 : 5)),
    seconds: Number(values.seconds ?? (values.quick ? 1.5 : 3)),
    syscalls: values['no-syscalls'] !== true,
    fastTarget: values['fast-target'],
  };
  const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-bench-'));
  /** @type {BenchResult[]} */
  const results = [];
  const load = { before: loadWords(), after: '' };
  try {
    for (const target of values.target.split(',')) {
      for (const entry of plan.cases) results.push(await runCase(folder, plan, target, entry));
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  load.after = loadWords();
  const run = { machine: machineWords(), load, plan: { ...plan, fastTarget: undefined }, results };
  const table = tableOf(run);
  console.log(table);
  if (values.json) await writeFile(values.json, `${JSON.stringify(run, null, 1)}\n`);
  if (values.table) await writeFile(values.table, table);
  if (values.plot) await writeFile(values.plot, plotOf(run));
  if (values.docs) await intoDocs(values.docs, table, plotOf(run));
}

/**
 * @param {string} names
 * @returns {Pair<string>}
 */
function pairOf(names) {
  const [first, second, ...more] = names.split(',');
  if (first === undefined || second === undefined || more.length > 0) {
    throw new Error('--pair wants two names');
  }
  return [first, second];
}

/**
 * The table in the place of this name, with the plot beside the page.
 * @param {string} name
 * @param {string} table
 * @param {string} plot
 */
async function intoDocs(name, table, plot) {
  putIntoPage(name, `![${name}](performance-${name}.svg)\n\n${table}`);
  await writeFile(`docs/performance-${name}.svg`, plot);
}

/**
 * One case on one target: a fresh target and fresh servers, so that peak memory is the case's.
 * @param {string} folder
 * @param {BenchPlan} plan
 * @param {string} targetName
 * @param {BenchCase} entry
 */
async function runCase(folder, plan, targetName, entry) {
  const target = await startTarget(targetName, { folder, fastTarget: plan.fastTarget, entry });
  /** @type {BenchServer[]} */
  const started = [];
  /**
   * @param {string} variant
   * @returns {Promise<{ server: BenchServer, side: MeasuredSide }>}
   */
  const startSide = async (variant) => {
    const index = started.length;
    const server = await startServer(variant, { folder, target, index, entry });
    started.push(server);
    return { server, side: { variant, runs: [], syscalls: null, peakKiB: 0 } };
  };
  try {
    const [first, second] = plan.variants;
    /** @type {Pair<Awaited<ReturnType<typeof startSide>>>} */
    const both = [await startSide(first), await startSide(second)];
    // What is not measured: compiled code, grown socket buffers, touched pages.
    for (const { server } of both) await runFio(server, entry, 1);
    for (let pair = 0; pair < plan.pairs; pair += 1) {
      for (const { server, side } of both) {
        side.runs.push(await runFio(server, entry, plan.seconds));
      }
    }
    for (const { server, side } of both) {
      if (plan.syscalls) side.syscalls = await syscallsDuring(server, entry);
    }
    for (const { server, side } of both) side.peakKiB = server.peakKiB();
    const result = summaryOf({ target: targetName, entry, sides: [both[0].side, both[1].side] });
    process.stderr.write(`${result.words}\n`);
    return result;
  } finally {
    for (const server of started) await server.stop();
    await target.stop();
  }
}

await main();
