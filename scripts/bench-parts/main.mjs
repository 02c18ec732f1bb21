// Interleaved pairs of whole processes: for each case both servers run side by side on the same
// target, and the same fio job goes to the one and to the other in turn. What is compared is the
// ratio within each pair, so that a machine that is busy with other things disturbs both alike.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CASES, caseNamed, QUICK_CASES } from './cases.mjs';
import { plotOf } from './plot.mjs';
import { runFio, startServer, startTarget, syscallsDuring } from './processes.mjs';
import { loadWords, machineWords, summaryOf, tableOf } from './report.mjs';

const HELP = `usage: scripts/bench [options]
  --quick            fewer cases, shorter and fewer runs
  --target NAMES     fast, tgt or both, comma separated           [fast,tgt]
  --pair A,B         what is compared: ours, ours+digests, ours@DIST_FOLDER, qemu-nbd
                                                                  [ours,qemu-nbd]
  --cases NAMES      ${CASES.map((entry) => entry.name).join(' ')}
  --pairs N          pairs of runs a case                         [5]
  --seconds S        length of one run                            [3]
  --no-syscalls      without the run under strace
  --json FILE        everything measured, as JSON
  --table FILE       the tables, as Markdown
  --plot FILE        the ratios, as SVG
  --docs NAME        table and plot into docs/PERFORMANCE.md, where it names NAME`;

const options = {
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
};

async function main() {
  const { values } = parseArgs({ options });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const names = values.cases?.split(',') ?? (values.quick ? QUICK_CASES : null);
  const plan = {
    cases: names === null ? CASES : names.map(caseNamed),
    variants: values.pair.split(','),
    pairs: Number(values.pairs ?? (values.quick ? 3 : 5)),
    seconds: Number(values.seconds ?? (values.quick ? 1.5 : 3)),
    syscalls: values['no-syscalls'] !== true,
    fastTarget: values['fast-target'],
  };
  if (plan.variants.length !== 2) throw new Error('--pair wants two names');
  const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-bench-'));
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

/** Replaces what stands between the markers of this name, and the plot beside it. */
async function intoDocs(name, table, plot) {
  const page = 'docs/PERFORMANCE.md';
  const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
  const text = await readFile(page, 'utf8');
  const [before, rest] = text.split(begin);
  const after = rest?.split(end)[1];
  if (after === undefined) throw new Error(`${page} has no place for ${name}`);
  await writeFile(`docs/performance-${name}.svg`, plot);
  const image = `![${name}](performance-${name}.svg)`;
  await writeFile(page, `${before}${begin}\n${image}\n\n${table}${end}${after}`);
}

/** One case on one target: a fresh target and fresh servers, so that peak memory is the case's. */
async function runCase(folder, plan, targetName, entry) {
  const target = await startTarget(targetName, { folder, fastTarget: plan.fastTarget, entry });
  const servers = [];
  try {
    for (const [index, variant] of plan.variants.entries()) {
      servers.push(await startServer(variant, { folder, target, index, entry }));
    }
    const runs = servers.map(() => []);
    // What is not measured: compiled code, grown socket buffers, touched pages.
    for (const server of servers) await runFio(server, entry, 1);
    for (let pair = 0; pair < plan.pairs; pair += 1) {
      for (const [index, server] of servers.entries()) {
        runs[index].push(await runFio(server, entry, plan.seconds));
      }
    }
    const syscalls = [];
    for (const server of servers) {
      syscalls.push(plan.syscalls ? await syscallsDuring(server, entry) : null);
    }
    const result = summaryOf({
      target: targetName,
      entry,
      variants: plan.variants,
      runs,
      syscalls,
      peaksKiB: servers.map((server) => server.peakKiB()),
    });
    process.stderr.write(`${result.words}\n`);
    return result;
  } finally {
    for (const server of servers) await server.stop();
    await target.stop();
  }
}

await main();
