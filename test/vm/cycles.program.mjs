// Attaches and detaches devices over and over in one process, at random moments, and prints what is
// left of it as JSON:  node cycles.program.mjs CYCLES SEED URL...
import { open, readdir, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { configOf } from '../../dist/config/config.js';
import { parseTargetUrl } from '../../dist/config/target-url.js';
import { attach } from '../../dist/supervisor/attach.js';

const DELAY_MS_MAX = 40;
const [cycles, seed, ...urls] = process.argv.slice(2);
let state = Number(seed) >>> 0;

/** A number below `max`; the same sequence for the same seed (Numerical Recipes' generator). */
function random(max) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * max);
}

const { values } = configOf({});
const options = { ...values, initiatorName: 'iqn.2025-01.local.test:cycles', sessionType: 'data' };
const hooks = { onEvent: () => {}, signal: new AbortController().signal };

/** One life of a device; some are used, some are removed while they are read. */
async function cycle(url, force) {
  const stack = await attach(parseTargetUrl(url), { ...options, boot: false }, hooks);
  await sleep(random(DELAY_MS_MAX));
  const [{ device }] = stack.exports;
  const file = await open(device, 'r');
  const reading = file.read(Buffer.alloc(65536), 0, 65536, 0).catch((error) => error.code);
  if (!force) await reading;
  const closing = force ? stack.close({ force: true }) : null;
  await reading;
  await file.close();
  await (closing ?? stack.close());
}

/** What this process has open. From its first stream on libuv keeps /dev/null in reserve. */
async function descriptorsNow() {
  const names = await readdir('/proc/self/fd');
  const links = names.map((name) => readlink(`/proc/self/fd/${name}`).catch(() => 'closed'));
  return (await Promise.all(links)).filter((link) => link !== '/dev/null').sort();
}

async function left() {
  globalThis.gc?.();
  const descriptors = await descriptorsNow();
  const names = (await readdir('/sys/block')).filter((name) => name.startsWith('nbd'));
  return {
    fds: descriptors.length,
    descriptors,
    rssMiB: Math.round(process.memoryUsage().rss / 2 ** 20),
    blockDevices: names.length,
  };
}

const [first] = urls;
for (let count = 0; count < 3; count += 1) await cycle(first, false);
const before = await left();
const beganAtMs = performance.now();
for (let count = 0; count < Number(cycles); count += 1) await cycle(first, random(3) === 0);
await Promise.all(urls.map((url) => cycle(url, false)));
const ms = Math.round(performance.now() - beganAtMs);
console.log(JSON.stringify({ before, after: await left(), ms }));
process.exit(0);
