/** `serve` that is killed and started again on the same socket is the same session to its target. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import type { TargetServer } from '../../src/target/server.js';
import type { TargetNode } from '../../src/target/target.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { nbdsh } from '../helpers/served-disk.js';

// Each of four processes takes its seconds to start on a busy machine.
vi.setConfig({ testTimeout: 120_000 });
const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const NAME = 'iqn.2024-01.com.example:kept';
const WRITE_10 = 0x2a;

let folder = '';
let disk: TargetDisk;
let node: TargetNode;
let server: TargetServer;
let isids: string[] = [];
const processes: ChildProcess[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-kept-'));
  disk = TargetDisk.ram({ sizeBytes: 1 << 20, writeCache: 'volatile' });
  isids = [];
  ({ node, server } = await embeddedTarget({ name: NAME, luns: { 0: disk } }));
  node.faults.onLogin = ({ isid, targetName }) => {
    if (targetName !== '') isids.push(isid);
    return undefined;
  };
});

afterEach(async () => {
  for (const child of processes.splice(0)) child.kill('SIGKILL');
  await server.close();
  await rm(folder, { recursive: true });
});

async function serve(socket = 'nbd.sock'): Promise<ChildProcess> {
  const url = `iscsi://127.0.0.1:${server.port}/${NAME}/0`;
  const args = [CLI, 'serve', url, '--socket', join(folder, socket), '--json'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  processes.push(child);
  for await (const line of createInterface({ input: child.stdout! })) {
    if ((JSON.parse(line) as { event: string }).event === 'ready') break;
  }
  child.stdout!.resume();
  return child;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}

const uri = () => `nbd+unix:///?socket=${join(folder, 'nbd.sock')}`;

describe('serve on the same socket', () => {
  it('a serve after a kill ends the tasks that the process before left at the target', async () => {
    const first = await serve();
    // The first write takes two seconds at the target, and does not care for its connection.
    let isFirst = true;
    node.faults.onCommand = ({ opcode }) => {
      if (opcode !== WRITE_10 || !isFirst) return undefined;
      isFirst = false;
      return { delayMs: 2000, outlivesLink: true };
    };
    const ghost = nbdsh(uri(), ["h.pwrite(b'A' * 4096, 0)"]).catch(() => undefined);
    while (isFirst) await sleep(10);
    await end(first, 'SIGKILL');
    await ghost;
    await serve();
    await nbdsh(uri(), ["h.pwrite(b'B' * 4096, 0)", 'h.flush()']);
    await sleep(2500);
    await nbdsh(uri(), ["assert h.pread(4096, 0) == b'B' * 4096"]);
    expect(new Set(isids).size).toBe(1);
    expect(node.stats.reinstatements).toBe(1);
  });

  it('a serve after a logout, or on another socket, is another session', async () => {
    await end(await serve(), 'SIGTERM');
    await serve();
    await serve('other.sock');
    expect(new Set(isids).size).toBe(3);
  });

  it('a serve after a kill fails the next flush if the disk has lost its cache meanwhile', async () => {
    const first = await serve();
    await nbdsh(uri(), ["h.pwrite(b'A' * 4096, 0)"]);
    await end(first, 'SIGKILL');
    node.restart({ powerLoss: true });
    await serve();
    const flush = ['import errno', 'try:', '  h.flush()', "  print('flushed')"];
    const caught = ['except nbd.Error as error:', '  assert error.errno == "EIO"'];
    expect(await nbdsh(uri(), [...flush, ...caught])).not.toContain('flushed');
    expect(await nbdsh(uri(), [...flush, ...caught])).toContain('flushed');
  });
});
