// The thread that runs the targets for scripts/fuzz/run.mjs, one after the other: the corpus of each, and
// then mutations of what took new ways. Each input is in the shared memory while it runs.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { mutated, randomOf, tokenBytes } from './mutate.mjs';

const HEAP_BYTES_MAX = 1 << 30;
/** Of one input, before another has its turn. */
const MUTATIONS = 16;
/** Kept of one run; what is shorter or took another way replaces nothing. */
const CORPUS_MAX = 4000;

/**
 * @typedef {{ module: string, targets: readonly string[], seconds: number, seed: number,
 *   corpus: string, shared: SharedArrayBuffer }} Job
 */

/** The class of a count: 1, 2, 3, 4–7, 8–15, 16–31, 32–127, more. */
const CLASS = Uint8Array.from({ length: 256 }, (_, count) => {
  if (count < 4) return count === 0 ? 0 : 1 << (count - 1);
  return count < 8 ? 8 : count < 16 ? 16 : count < 32 ? 32 : count < 128 ? 64 : 128;
});

class Fuzzer {
  /** @type {Buffer[]} */
  corpus = [];
  runs = 0;
  /** @type {Uint8Array} */
  #seen;
  #shared;
  #module;
  #run;

  /**
   * @param {{ counters: Uint8Array, wanted: (string | number)[] } & Record<string, any>} module
   * @param {string} target
   * @param {SharedArrayBuffer} shared
   */
  constructor(module, target, shared) {
    this.#module = module;
    this.#run = module[target];
    this.#seen = new Uint8Array(module.counters.length);
    this.#shared = { words: new Int32Array(shared, 0, 2), bytes: Buffer.from(shared, 8) };
    if (typeof this.#run !== 'function') throw new Error(`there is no target ${target}`);
  }

  get blocks() {
    return this.#seen.reduce((sum, each) => sum + (each === 0 ? 0 : 1), 0);
  }

  /**
   * Runs one input; keeps it if it took a new way.
   * @param {Buffer} input
   */
  try(input) {
    const { words, bytes } = this.#shared;
    const { counters, wanted } = this.#module;
    input.copy(bytes);
    words[1] = input.length;
    this.runs += 1;
    Atomics.store(words, 0, this.runs);
    counters.fill(0);
    wanted.length = 0;
    this.#run(Buffer.from(input));
    let isNew = false;
    for (let at = 0; at < counters.length; at += 1) {
      const bits = CLASS[counters[at] ?? 0] ?? 0;
      if ((bits & ~(this.#seen[at] ?? 0)) === 0) continue;
      this.#seen[at] = (this.#seen[at] ?? 0) | bits;
      isNew = true;
    }
    if (isNew && this.corpus.length < CORPUS_MAX) this.corpus.push(input);
    return isNew;
  }
}

/**
 * @param {Record<string, any>} module
 * @param {string} target
 * @param {Job} job
 */
function fuzz(module, target, { seconds, seed, corpus, shared }) {
  const fuzzer = new Fuzzer(/** @type {any} */ (module), target, shared);
  const random = randomOf(seed);
  const tokens = module['tokens'].flatMap(tokenBytes);
  const began = performance.now();
  fuzzer.try(Buffer.alloc(0));
  for (const input of inputsIn(join(corpus, target))) fuzzer.try(input);
  const known = fuzzer.corpus.length;
  while (performance.now() - began < seconds * 1000) {
    // The newest inputs are the least explored ones.
    const from = random(2) === 0 ? random(fuzzer.corpus.length) : newest(fuzzer.corpus, random);
    const input = fuzzer.corpus[from] ?? Buffer.alloc(0);
    fuzzer.try(input);
    // What it is compared with helps it on more often than any other constant.
    const wanted = module['wanted'].flatMap(tokenBytes);
    for (let left = MUTATIONS; left > 0; left -= 1) {
      const near = wanted.length > 0 && random(2) === 0;
      const means = { random, tokens: near ? wanted : tokens, corpus: fuzzer.corpus };
      fuzzer.try(mutated(input, means));
    }
    if (process.memoryUsage().heapUsed > HEAP_BYTES_MAX) throw new Error('the memory grows');
  }
  const found = fuzzer.corpus.slice(known);
  const { blocks, runs } = fuzzer;
  const took = (performance.now() - began) / 1000;
  parentPort?.postMessage({ target, found, blocks, runs, took });
}

/**
 * @param {readonly Buffer[]} corpus
 * @param {(bound: number) => number} random
 */
function newest(corpus, random) {
  return Math.max(0, corpus.length - 1 - random(Math.min(16, corpus.length)));
}

/** @param {string} folder */
function inputsIn(folder) {
  try {
    return readdirSync(folder).map((name) => readFileSync(join(folder, name)));
  } catch {
    return [];
  }
}

/** @type {Job} */
const job = workerData;
const module = await import(job.module);
for (const target of job.targets) {
  parentPort?.postMessage({ begun: target });
  fuzz(module, target, job);
}
