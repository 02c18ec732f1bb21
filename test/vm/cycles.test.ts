import { resolve } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { startTgt } from '../helpers/tgt.js';
import { cleanUp, configuredDevices, run, stuckTasks } from './attached.js';
import { MIB } from './targets.js';

/** ISCSI_NBD_CYCLES=100 for the long run. */
const CYCLES = Number(process.env['ISCSI_NBD_CYCLES'] ?? 20);
const SEED = 20_260;
const DEVICES = 8;

afterEach(cleanUp);

type Left = { readonly fds: number; readonly rssMiB: number; readonly blockDevices: number };

it(`${CYCLES} devices one after another and ${DEVICES} at once leave nothing behind`, async () => {
  await using tgt = await startTgt({
    luns: Array.from({ length: DEVICES }, () => ({ sizeBytes: MIB })),
  });
  const urls = Array.from({ length: DEVICES }, (_, at) => tgt.url(at + 1));
  const program = resolve('test/vm/cycles.program.mjs');
  const flags = ['--expose-gc', program, String(CYCLES), String(SEED)];
  const said = await run(process.execPath, ...flags, ...urls);
  const { before, after, ms } = JSON.parse(said) as { before: Left; after: Left; ms: number };
  console.log(`seed ${SEED}: ${CYCLES} cycles, ${DEVICES} at once in ${ms} ms: ${said.trim()}`);
  expect(after.fds).toBeLessThanOrEqual(before.fds);
  expect(after.blockDevices).toBeLessThanOrEqual(DEVICES);
  expect(after.rssMiB - before.rssMiB).toBeLessThan(40);
  expect(await configuredDevices()).toEqual([]);
  expect(await stuckTasks()).toEqual([]);
});
