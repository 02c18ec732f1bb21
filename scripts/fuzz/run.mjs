// node scripts/fuzz/run.mjs SECONDS [TARGET...]: see scripts/fuzz/run.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { instrumented } from './instrument.mjs';
import { INPUT_BYTES_MAX } from './mutate.mjs';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
/** One input takes microseconds; a machine that is busy with other things does not hang so long. */
const HANG_MS = Number(process.env['FUZZ_HANG_MS'] ?? 20_000);

const [seconds = '60', ...names] = process.argv.slice(2);
const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31);
const keep = process.env['FUZZ_KEEP'] ?? '';
const path = await instrumented(process.env['FUZZ_ENTRY'] ?? 'test/fuzz/targets.ts');
process.once('exit', () => rmSync(path, { force: true }));
const module = pathToFileURL(path).href;
const all = Object.entries(await import(module)).filter(([, value]) => typeof value === 'function');
const targets = names.length > 0 ? names : all.map(([name]) => name).sort();

const shared = new SharedArrayBuffer(8 + INPUT_BYTES_MAX);
const words = new Int32Array(shared, 0, 2);
const corpus = join(ROOT, 'test/corpus');
const workerData = { module, targets, seconds: Number(seconds), seed, corpus, shared };
const worker = new Worker(new URL('target.mjs', import.meta.url), { workerData });
let current = '';
let before = -1;
const timer = setInterval(() => {
  const runs = Atomics.load(words, 0);
  if (runs === before) broke('it hangs');
  before = runs;
}, HANG_MS);
worker.on('error', (error) => broke(error.stack ?? error.message));
worker.on('exit', () => clearInterval(timer));
worker.on('message', (message) => {
  if ('begun' in message) current = message.begun;
  else report(message);
});

/** @param {string} why */
function broke(why) {
  const input = Buffer.from(new Uint8Array(shared, 8, words[1] ?? 0));
  console.log(`${current}: ${why}\nseed ${seed}, input ${input.toString('hex')}`);
  process.exit(1);
}

/**
 * @param {{ target: string, found: Uint8Array[], blocks: number, runs: number, took: number }} done
 */
function report({ target, found, blocks, runs, took }) {
  const what = `${runs} inputs (${Math.round(runs / took)}/s), ${blocks} blocks`;
  console.log(`${target}: ${what}, ${found.length} new ways, seed ${seed}`);
  if (keep === '') return;
  mkdirSync(join(keep, target), { recursive: true });
  for (const [at, input] of found.entries()) {
    writeFileSync(join(keep, target, String(at).padStart(4, '0')), input);
  }
}
