/** What the bundled command costs before and between requests: processor time and memory. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { FastTarget } from './fast-target.js';

const run = promisify(execFile);
const MAIN = fileURLToPath(new URL('../../dist/boot/main.mjs', import.meta.url));
const ROUNDS = 9;
/** A newer Node alone costs half of what Node 20 costs, so the same program is more beside it. */
const RATIO_MAX = Number(process.versions.node.split('.')[0]) > 20 ? 2 : 1.5;
/** The figures are those of the oldest Node; each newer one has more pages of its own. */
const NODE_MIB = Number(process.versions.node.split('.')[0]) > 20 ? 16 : 0;

/** Memory of the start goes back to the system within twelve seconds. */
const REST_MS = 15_000;

let folder = '';
let target: FastTarget;
const children: ChildProcess[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-idle-'));
  target = await FastTarget.start(folder);
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }
});

afterAll(async () => {
  target?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** User and system time of one run of a command, in ms, as bash counts it. */
async function cpuMs(command: string): Promise<number> {
  const { stderr } = await run('bash', ['-c', `TIMEFORMAT='%U %S'; time ${command} >/dev/null`]);
  const [user = Number.NaN, system = Number.NaN] = stderr.trim().split(' ').map(Number);
  return 1000 * (user + system);
}

/** Starts a command that goes on, and waits for its first line. */
async function started(...words: string[]): Promise<ChildProcess> {
  const child = spawn(MAIN, words, { stdio: ['ignore', 'pipe', 'ignore'] });
  children.push(child);
  await once(createInterface(child.stdout), 'line');
  return child;
}

/** Resident memory that the kernel counts, in MiB, if what the start needed has been given back. */
async function restingMiB({ pid }: ChildProcess): Promise<number> {
  await sleep(REST_MS);
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024;
}

describe('the command', () => {
  it('--version costs at most one and a half times what Node alone costs', async () => {
    const ratios: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const node = await cpuMs('node -e 0');
      ratios.push((await cpuMs(`${MAIN} --version`)) / node);
    }
    expect(ratios.toSorted((a, b) => a - b)[ROUNDS >> 1]).toBeLessThanOrEqual(RATIO_MAX);
  });

  it('serve with one LUN rests in 70 MiB', async () => {
    const serve = await started('serve', target.url, '--socket', join(folder, 'nbd'));
    expect(await restingMiB(serve)).toBeLessThanOrEqual(70 + NODE_MIB);
  });

  it('a daemon with one session rests in 75 MiB', async () => {
    const control = join(folder, 'control');
    const places = ['--state-directory', join(folder, 'state'), '--socket-directory', folder];
    const daemon = await started('daemon', '--control', control, ...places);
    const { host, pathname } = new URL(target.url.replace('iscsi:', 'http:'));
    const name = pathname.split('/')[1] ?? '';
    await run(MAIN, ['login', host, name, '--control', control]);
    expect(await restingMiB(daemon)).toBeLessThanOrEqual(75 + NODE_MIB);
  });
});
