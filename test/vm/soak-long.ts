/**
 * Hours of verified load while targets, links and processes fail at random moments:
 * scripts/test-parts/soak.
 */
import { appendFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { numbersOf } from '../helpers/random.js';
import { cleanUp, configuredDevices, shell, stuckTasks } from './attached.js';
import { type Memory, SoakWorld } from './soak-world.js';

/** 0: each fault once, and briefly (1.5 minutes). */
const SECONDS = Number(process.env['SOAK_SECONDS'] ?? 0);
const SEED = Number(process.env['SOAK_SEED'] ?? Date.now() % 1_000_000);
const REPORT = '/results/soak.txt';
/** Until the machine code of Node and the pools have their size. */
const WARM_UP_SECONDS = 120;
const MIB = 1 << 20;
let folder = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'soak-'));
});

afterEach(async () => {
  await cleanUp();
  await rm(folder, { recursive: true });
});

type Random = (below: number) => number;
type Fault = (world: SoakWorld, ms: (most: number) => Promise<void>) => Promise<void>;

const FAULTS: Readonly<Record<string, Fault>> = {
  'the target is killed': async ({ tgt }, pause) => {
    await tgt.kill();
    await pause(10_000);
    await tgt.restart();
  },
  'links are reset': async ({ wire }, pause) => {
    await wire.cut('reset');
    await pause(8_000);
    await wire.mend();
  },
  'packets are dropped': async ({ wire }, pause) => {
    await wire.cut('drop');
    await pause(25_000);
    await wire.mend();
  },
  'the daemon is killed': async (world, pause) => {
    await world.killed.stop('SIGKILL');
    await pause(5_000);
    await world.startKilled();
  },
  'the daemon is killed while the target is away': async (world, pause) => {
    await world.tgt.kill();
    await world.killed.stop('SIGKILL');
    const started = world.startKilled();
    await pause(8_000);
    await world.tgt.restart();
    await started;
  },
  'logins and logouts': async (world) => {
    for (let visits = 0; visits < 3; visits += 1) await world.visit(async () => undefined);
  },
  'a logout while packets are dropped': async (world, pause) => {
    await world.visit(async () => {
      await world.wire.cut('drop');
      setTimeout(() => void world.wire.mend(), 3_000);
      await pause(2_000);
    });
  },
  'a disk grows': (world) => world.grow(),
};

const mebibytes = (bytes: number) => (bytes / MIB).toFixed(1);

async function report(line: string): Promise<void> {
  console.log(line);
  await appendFile(REPORT, `${line}\n`);
}

/** Readings of the daemon that stays, and of the kernel's slabs. */
async function reading(world: SoakWorld, seconds: number, faults: number): Promise<Memory> {
  const memory = await world.memory(world.stays);
  const slab = /^Slab:\s+(\d+) kB/m.exec(await readFile('/proc/meminfo', 'utf8'))?.[1];
  const { rss, slabs, heap, descriptors } = memory;
  await report(
    `${seconds.toFixed(0)} s, ${faults} faults: RSS ${mebibytes(rss)} MiB, ` +
      `slabs ${mebibytes(slabs)} MiB, heap ${mebibytes(heap)} MiB, ${descriptors} descriptors, ` +
      `slabs of the kernel ${mebibytes(Number(slab) * 1024)} MiB`,
  );
  return memory;
}

/** The order of the faults: all of them, mixed, again and again. */
function* mixed(random: Random): Generator<readonly [string, Fault]> {
  for (;;) {
    const left = Object.entries(FAULTS);
    while (left.length > 0) yield* left.splice(random(left.length), 1);
  }
}

async function soak(world: SoakWorld): Promise<{ first: Memory; last: Memory }> {
  const random = numbersOf(SEED);
  const beganAtMs = performance.now();
  const passed = () => (performance.now() - beganAtMs) / 1000;
  const isLong = SECONDS > 0;
  const pause = (most: number) => sleep(isLong ? 500 + random(most) : 200);
  let first: Memory | null = null;
  let faults = 0;
  let nextReadingAt = isLong ? WARM_UP_SECONDS : 0;
  for (const [name, fault] of mixed(random)) {
    if (isLong ? passed() > SECONDS : faults >= Object.keys(FAULTS).length) break;
    const begunAtMs = performance.now();
    await Promise.race([world.failed, fault(world, pause).then(() => world.untilWell())]);
    faults += 1;
    const tookSeconds = (performance.now() - begunAtMs) / 1000;
    await report(`${passed().toFixed(0)} s: ${name}, ${tookSeconds.toFixed(1)} s`);
    await pause(10_000);
    if (passed() < nextReadingAt) continue;
    first ??= await reading(world, passed(), faults);
    nextReadingAt = passed() + 60;
    if (first !== null) await reading(world, passed(), faults);
  }
  await sleep(isLong ? 10_000 : 1500);
  const last = await reading(world, passed(), faults);
  return { first: first ?? last, last };
}

it('no request fails, all is verified, and a daemon that stays has as much memory and as many descriptors as before', {
  timeout: (SECONDS + 600) * 1000,
}, async () => {
  await report(`seed ${SEED}, ${SECONDS} s`);
  await shell('dmesg --clear');
  await using world = await SoakWorld.make(folder);
  await world.begin(SEED);
  const { first, last } = await soak(world);
  await world.end();
  expect(await shell("dmesg | grep -E 'I/O error|EXT4-fs (error|warning)' || true")).toBe('');
  expect(await configuredDevices()).toEqual([]);
  expect(await stuckTasks()).toEqual([]);
  expect(last.descriptors).toBeLessThanOrEqual(first.descriptors);
  expect(last.slabs).toBeLessThanOrEqual(first.slabs + 16 * MIB);
  if (SECONDS > 0) expect(last.rss).toBeLessThanOrEqual(first.rss + 48 * MIB);
  await report('all was verified');
});
