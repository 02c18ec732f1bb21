/** A process that retains writes is stopped at any instant: what it would leave is whole. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  RETAINED_INDEX_BYTES,
  readRetainedIndex,
} from '../../src/bridge/retained/retained-index.js';
import { SharedFile } from '../../src/io/shared-memory.js';
import { LeftSlabs } from '../../src/io/shared-slabs.js';
import { LeftJournals } from '../../src/lun/left-journals.js';
import { PREAMBLE_BYTES } from '../../src/lun/retained-files.js';
import { MemoryFolder } from '../helpers/memory-folder.js';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });
const SESSION = '00112233445566aa';
const STOPS = Number(process.env['RETAINED_STOPS'] ?? 200);
const KILLS = 5;

let folder: MemoryFolder;
let directory: string;
let child: ChildProcess;

beforeEach(async () => {
  folder = new MemoryFolder();
  directory = join(folder.path, 'retained');
  await startWriter();
});
afterEach(() => {
  child.kill('SIGKILL');
  folder[Symbol.dispose]();
});

async function startWriter(): Promise<void> {
  const program = resolve('test/lun/retained-writer.program.mjs');
  child = spawn(process.execPath, [program, directory], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout ?? child, 'data');
}

/** Every thread of the process is stopped when this returns, wherever it was. */
function stop(): void {
  child.kill('SIGSTOP');
  const tasks = `/proc/${child.pid}/task`;
  const isStopped = (task: string) =>
    /^\d+ \(.*\) [Tt] /.test(readFileSync(join(tasks, task, 'stat'), 'utf8'));
  while (!readdirSync(tasks).every(isStopped));
}

const pathOf = (ending: string) =>
  join(directory, readdirSync(directory).find((name) => name.endsWith(ending)) ?? '');

/** Write n has the number n in each of its words, see the program. Returns the numbers. */
function checked(index: Buffer, slab: (index: number) => Buffer): number[] {
  const entries = readRetainedIndex(index);
  if (entries === null) throw new Error('the index is not whole');
  return entries.map(({ offsetBytes, lengthBytes, pieces }) => {
    const n = offsetBytes / 8192;
    const [at = -1, offset = 0, length = 0] = pieces;
    const bytes = slab(at).subarray(offset, offset + length);
    const wanted = Buffer.from(new Float64Array(lengthBytes / 8).fill(n).buffer);
    if (lengthBytes !== 512 * (1 + (n % 16)) || !bytes.equals(wanted)) {
      throw new Error(`write ${n} is torn`);
    }
    return n;
  });
}

/** Each write that is there follows the one before it. */
const areInOrder = (numbers: readonly number[]) =>
  numbers.every((n, at) => at === 0 || n === (numbers[at - 1] ?? 0) + 1);

describe('a process that retains writes', () => {
  it(`each entry is whole or absent at any of ${STOPS} instants`, async () => {
    const seen = new Set<number>();
    for (let count = 0; count < STOPS; count += 1) {
      await sleep(Math.random() * 2);
      stop();
      const file = SharedFile.open(pathOf('.index'));
      const slabs = LeftSlabs.open(pathOf('.slabs'));
      const numbers = checked(file.read(PREAMBLE_BYTES, RETAINED_INDEX_BYTES), (at) =>
        slabs.slab(at),
      );
      expect(areInOrder(numbers)).toBe(true);
      for (const n of numbers) seen.add(n % 300);
      slabs.close();
      file.close();
      child.kill('SIGCONT');
    }
    expect(seen.size).toBeGreaterThan(200);
  });

  it('what it retained is found after SIGKILL', async () => {
    const { warnings, left } = { warnings: [] as string[], left: () => leftJournals(warnings) };
    for (let count = 0; count < KILLS; count += 1) {
      if (count > 0) await startWriter();
      await sleep(Math.random() * 50);
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
      const { journals, hasLoss } = left().recover(SESSION, 0);
      expect([journals.length, hasLoss]).toEqual([1, false]);
      for (const { index, slab, drained } of journals) {
        expect(areInOrder(checked(index, slab))).toBe(true);
        drained();
      }
      expect(readdirSync(directory)).toEqual([]);
    }
    expect(warnings).toEqual([]);
  });

  it('no core file of it has what it retained', () => {
    stop();
    const maps = readFileSync(`/proc/${child.pid}/smaps`, 'utf8');
    const ours = maps.split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/).filter((map) => map.includes(directory));
    expect(ours.length).toBeGreaterThan(1);
    for (const map of ours) expect(/^VmFlags: (.*)$/m.exec(map)?.[1]?.split(' ')).toContain('dd');
  });
});

function leftJournals(warnings: string[]): LeftJournals {
  return new LeftJournals({
    directory,
    bootId: 'boot',
    indexBytes: RETAINED_INDEX_BYTES,
    onWarning: (message) => warnings.push(message),
  });
}
