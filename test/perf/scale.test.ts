/**
 * What many LUNs and sessions cost in one process, in bytes and slabs, which mean the same on any
 * machine. The server runs in this process; fio and the target are processes of their own.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { configOf } from '../../src/config/config.js';
import type { OpenSession, SessionOptions } from '../../src/config/contract.js';
import { parseTargetUrl } from '../../src/config/target-url.js';
import { threadRuntime } from '../../src/lun/runtime.js';
import { serve } from '../../src/supervisor/serve.js';
import { FastTarget } from './fast-target.js';

const run = promisify(execFile);
setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const LUNS = 64;
const SESSIONS = 50;
const KIB = 1024;
/** 128 MiB, the default of heldBytesMax, in slabs of 1 MiB. */
const HELD_SLABS_MAX = 128;
/** One process is at it; the machine may be busy. */
const SLOW = 120_000;

let folder = '';
let target: FastTarget;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-scale-'));
  target = await FastTarget.start(folder, LUNS);
  // Code and tables that the first session brings.
  await (await served('first', 1)).close();
}, SLOW);

afterAll(async () => {
  target?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** The target takes any name for one of its own; every LUN without `lun`. */
function served(name: string, lun: number | null): Promise<OpenSession> {
  // Sessions that write refuse to share a LUN.
  const given = { initiatorName: 'iqn.2024-01.com.example:scale', readOnly: true };
  const socketPath = join(folder, `${name}.sock`);
  const options = { ...(configOf(given).values as SessionOptions), ...given, socketPath };
  const path = `127.0.0.1:${target.port}/iqn.2024-01.com.example:${name}`;
  const url = parseTargetUrl(`iscsi://${path}${lun === null ? '' : `/${lun}`}`);
  return serve(url, options, { onEvent: () => {}, signal: new AbortController().signal });
}

function heapBytes(): number {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

const slabs = () => threadRuntime().pool.buffers.length;

describe('an idle LUN', { timeout: SLOW }, () => {
  it('an idle LUN costs under 100 KiB of heap and no slab', async () => {
    const one = await served('one', 1);
    const [heapOfOne, slabsOfOne] = [heapBytes(), slabs()];
    const all = await served('all', null);
    expect(all.exports).toHaveLength(LUNS);
    expect(heapBytes() - heapOfOne).toBeLessThan(LUNS * 100 * KIB);
    // The connection of the second session has one.
    expect(slabs() - slabsOfOne).toBeLessThan(4);
    await one.close();
    await all.close();
  });
});

describe('an idle session', { timeout: SLOW }, () => {
  async function open(): Promise<OpenSession[]> {
    const stacks = [];
    for (let count = 0; count < SESSIONS; count += 1) stacks.push(await served(`s${count}`, 1));
    return stacks;
  }

  async function close(stacks: readonly OpenSession[]): Promise<void> {
    for (const stack of stacks) await stack.close();
  }

  it('a session costs under 300 KiB of heap and one slab', async () => {
    const [heapBefore, slabsBefore] = [heapBytes(), slabs()];
    const stacks = await open();
    expect(heapBytes() - heapBefore).toBeLessThan(SESSIONS * 300 * KIB);
    expect(slabs() - slabsBefore).toBeLessThan(SESSIONS + 4);
    await close(stacks);
  });

  it('a closed session leaves no memory behind', async () => {
    // After some, V8 has compiled what it will. A whole session would be more than 27 KiB.
    await close(await open());
    const heapBefore = heapBytes();
    await close(await open());
    await close(await open());
    expect(heapBytes() - heapBefore).toBeLessThan(2 * SESSIONS * 12 * KIB);
  });
});

describe('load on 64 LUNs at once', { timeout: SLOW }, () => {
  it('each LUN is served, in slabs that heldBytesMax and the clients bound', async () => {
    const all = await served('load', null);
    const before = slabs();
    const jobs = all.exports.flatMap(({ lun }) => [
      `--name=lun${lun}`,
      `--uri=nbd+unix:///${lun}?socket=${join(folder, 'load.sock')}`,
    ]);
    const { stdout } = await run(
      'fio',
      [
        '--thread',
        '--ioengine=nbd',
        '--rw=randread',
        '--bs=64k',
        '--iodepth=16',
        '--size=64m',
        '--io_size=1t',
        '--number_ios=100',
        '--output-format=json',
        ...jobs,
      ],
      { maxBuffer: 1 << 26 },
    );
    const done = JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs;
    expect(done).toHaveLength(LUNS);
    for (const { error, read } of done) {
      expect(error).toBe(0);
      expect(read.total_ios).toBeGreaterThanOrEqual(100);
    }
    expect(slabs() - before).toBeLessThan(LUNS + HELD_SLABS_MAX);
    await all.close();
  });
});
