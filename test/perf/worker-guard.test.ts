/**
 * What one I/O costs in a worker of a daemon, counted as in `guard.test`: on a plain session, on one that
 * retains its writes, and over two paths. The worker itself says what it has cost.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { native } from '../../src/io/native.js';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { MemoryFolder } from '../helpers/memory-folder.js';
import { DaemonProcess } from '../integration/daemon-process.js';
import { FastTarget } from './fast-target.js';

const run = promisify(execFile);
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const WORKER_COSTS = resolve('test/perf/worker-costs.program.mjs');
const LONE_WRITER = resolve('test/perf/lone-writer.program.mjs');
const KINDS = [
  { kind: 'a plain session', flags: ['--retain-writes', 'never'] },
  { kind: 'retained writes', flags: ['--retain-writes', 'always'] },
  {
    kind: 'two paths',
    flags: ['--retain-writes', 'always', '--multipath', 'auto', '--sessions-per-portal', '2'],
  },
] as const;

type Costs = ReturnType<(typeof native)['counters']> & {
  readonly turns: number;
  readonly copied: number;
  readonly heapUsed: number;
  readonly allocated: number;
};

let folder = '';
let memory: MemoryFolder;
let target: FastTarget;
let daemon: DaemonProcess;
const sockets = new Map<string, string>();

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-guard-'));
  memory = new MemoryFolder();
  target = await FastTarget.start(folder, 2, 'cache');
  vi.stubEnv('COSTS_FILE', join(folder, 'costs'));
  vi.stubEnv('NODE_OPTIONS', `--import=${WORKER_COSTS}`);
  daemon = new DaemonProcess({ retained: join(memory.path, 'retained') });
  await daemon.start('--workers', '1', '--busy-poll', '0');
  vi.unstubAllEnvs();
  for (const [number, { kind, flags }] of KINDS.entries()) {
    const name = `iqn.2024-01.com.example:guard${number}`;
    const portal = `127.0.0.1:${target.port}`;
    // The target has one memory, and it would be one disk of three sessions.
    const words = ['login', portal, name, '--luns', '1', '--shared', ...flags];
    const { session } = await daemon.json<{ session: SessionView }>(...words);
    expect(session.worker).toBe(0);
    if (kind === 'two paths') await daemon.until(() => hasTwoPaths(name));
    const [device] = session.devices;
    sockets.set(kind, device?.socket ?? '');
    await fio(kind, { rw: 'randrw', bs: '4k', depth: 32, ios: 20_000 });
    await fio(kind, { rw: 'randrw', bs: '256k', depth: 8, ios: 1000 });
  }
});

async function hasTwoPaths(target: string): Promise<boolean> {
  const { paths } = await daemon.json<SessionView>('session', target);
  return paths.filter(({ state }) => state === 'ready').length === 2;
}

afterAll(async () => {
  vi.unstubAllEnvs();
  await daemon?.[Symbol.asyncDispose]();
  target?.stop();
  memory?.[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

type Job = {
  readonly rw: string;
  readonly bs: string;
  readonly depth: number;
  readonly ios: number;
};

async function fio(kind: string, { rw, bs, depth, ios }: Job): Promise<void> {
  if (rw === 'randwrite' && depth === 1) {
    // By a program that sends a request in one piece; see there.
    await run(process.execPath, [LONE_WRITER, sockets.get(kind) ?? '', String(ios)]);
    return;
  }
  const words = ['--name=guard', '--ioengine=nbd', '--size=64m', '--io_size=1t', '--norandommap'];
  words.push(`--uri=nbd+unix:///?socket=${sockets.get(kind)}`, `--rw=${rw}`, `--bs=${bs}`);
  words.push(`--iodepth=${depth}`, `--number_ios=${ios}`, '--output-format=json');
  const { stdout } = await run('fio', words);
  const [job] = JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs;
  expect(job.error).toBe(0);
  expect(job.read.total_ios + job.write.total_ios).toBeGreaterThanOrEqual(ios);
}

async function costs(): Promise<Costs> {
  const path = join(folder, 'costs');
  rmSync(path, { force: true });
  process.kill(daemon.pid, 'SIGUSR2');
  await daemon.until(() => existsSync(path));
  return JSON.parse(readFileSync(path, 'utf8')) as Costs;
}

/** Of one I/O of the job. */
async function costOf(kind: string, job: Job) {
  const before = await costs();
  await fio(kind, job);
  const after = await costs();
  const of = (key: keyof Costs) => (after[key] - before[key]) / job.ios;
  const socketCalls = of('receives') + of('sends');
  return {
    socketCalls,
    calls: socketCalls + 2 * of('watches') + of('waits') + of('turns'),
    bytesIn: of('bytesReceived'),
    bytesOut: of('bytesSent'),
    copied: of('copied'),
    allocated: after.allocated / job.ios,
    grown: after.heapUsed - before.heapUsed,
  };
}

/** The least of some runs, since the scheduler can only add to what the code costs. */
async function leastOf(
  cost: 'calls' | 'socketCalls' | 'copied',
  ...[kind, job, enough]: readonly [string, Job, number]
): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let runs = 0; runs < 8 && least >= enough; runs += 1) {
    least = Math.min(least, (await costOf(kind, job))[cost]);
  }
  return least;
}

describe.each(KINDS)('$kind in a worker', ({ kind }) => {
  it.each(['randread', 'randwrite'])(
    'a lone 4 KiB %s costs four calls on its sockets, and in a deep queue less than three in all',
    async (rw) => {
      const lone = { rw, bs: '4k', depth: 1, ios: 2000 };
      expect(await leastOf('socketCalls', kind, lone, 4.1)).toBeLessThan(4.1);
      const deep = { rw, bs: '4k', depth: 32, ios: 20_000 };
      expect(await leastOf('calls', kind, deep, 3)).toBeLessThan(3);
    },
  );

  it.each(['randread', 'randwrite'])(
    'the bytes of a 256 KiB %s cross each socket once, in less than twelve calls, without a copy',
    async (rw) => {
      const size = 262_144;
      const cost = await costOf(kind, { rw, bs: '256k', depth: 8, ios: 1000 });
      expect(cost.calls).toBeLessThan(12);
      expect(cost.bytesIn).toBeGreaterThan(size);
      expect(cost.bytesIn).toBeLessThan(size + 28 + 48 + 4);
      expect(cost.bytesOut).toBeGreaterThan(size);
      expect(cost.bytesOut).toBeLessThan(size + 48 + 32 + 4);
      // Tables that grow are copied once; a payload that is copied is so in each run.
      const job = { rw, bs: '256k', depth: 8, ios: 1000 };
      expect(await leastOf('copied', kind, job, 100)).toBeLessThan(100);
    },
  );

  it('the heap does not grow over 50,000 I/Os, each of which allocates under 500 bytes', async () => {
    const cost = await costOf(kind, { rw: 'randrw', bs: '4k', depth: 32, ios: 50_000 });
    expect(cost.grown).toBeLessThan(400_000);
    expect(cost.allocated).toBeLessThan(500);
  });
});
