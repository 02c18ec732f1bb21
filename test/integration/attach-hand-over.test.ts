/**
 * The session of `attach` without its kernel devices, for which sockets stand in: what it writes
 * down for the process that comes next, and what it finds at the target.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { AttachOptions, OpenSession, ProductEvent } from '../../src/config/contract.js';
import { attachBy } from '../../src/supervisor/attach.js';
import { isHandedOver } from '../../src/supervisor/record-identity.js';
import type { SessionRecord } from '../../src/supervisor/session-record.js';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';
import { SESSION_OPTIONS } from '../helpers/in-process.js';
import { nbdsh } from '../helpers/served-disk.js';

vi.setConfig({ testTimeout: 60_000 });
const NAME = 'iqn.2024-01.com.example:attached';

let folder: string;
let disk: TargetDisk;
let node: TargetNode;
let server: TargetServer;
let events: ProductEvent[];
const stacks: OpenSession[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-hand-over-'));
  disk = volatileDisk('one');
  node = new TargetNode({
    targets: [{ name: NAME, luns: { 0: disk } }],
    negotiation: { defaultTime2Wait: 0 },
  });
  server = await startTargetServer(node);
  events = [];
});

afterEach(async () => {
  node.faults.onCommand = undefined;
  for (const stack of stacks.splice(0)) await stack.close({ force: true });
  await server.close().catch(() => undefined);
  rmSync(folder, { recursive: true, force: true });
});

function volatileDisk(serial: string): TargetDisk {
  return TargetDisk.ram({ sizeBytes: 1 << 20, writeCache: 'volatile', serial });
}

async function attach(
  lun: number | null,
  options: Partial<AttachOptions> = {},
): Promise<OpenSession> {
  const stack = await attachBy(
    {
      exportPlan: { kind: 'sockets', directory: folder },
      stateDirectory: join(folder, 'state'),
      warnings: [],
    },
    { host: '127.0.0.1', port: server.port, targetName: NAME, lun },
    { ...SESSION_OPTIONS, reconnectIntervalSeconds: 0.2, boot: false, ...options },
    { onEvent: (event) => events.push(event), signal: AbortSignal.timeout(60_000) },
  );
  stacks.push(stack);
  return stack;
}

const names = () => readdirSync(join(folder, 'state', 'sessions'));
const record = (): SessionRecord =>
  JSON.parse(readFileSync(join(folder, 'state', 'sessions', names()[0]!), 'utf8'));
const uriOf = (stack: OpenSession, lun = 0) =>
  `nbd+unix:///${lun}?socket=${join(folder, `${stack.sessionId}.sock`)}`;
const write = (stack: OpenSession) => nbdsh(uriOf(stack), ["h.pwrite(b'A' * 4096, 0)"]);

describe('attach --keep-devices that ends', () => {
  it('an attach that leaves its devices flushes the disks and marks its record as handed over', async () => {
    const stack = await attach(0, { keepDevices: true });
    await write(stack);
    expect(disk.unflushedBytes).toBe(4096);
    expect(record().handedOver).toBe(undefined);
    await stack.close();
    await stack.closed;
    expect(disk.unflushedBytes).toBe(0);
    const left = record();
    expect(left).toMatchObject({ version: 2, sessionId: stack.sessionId, active: true, luns: [0] });
    expect(isHandedOver(left, 0)).toBe(true);
    expect(events.some(({ event }) => event === 'closed')).toBe(false);
  });

  it('names the LUNs that did not write it down', async () => {
    node.setLun(NAME, 1, volatileDisk('two'));
    const stack = await attach(null, { keepDevices: true });
    node.faults.onCommand = ({ lun }) => (lun === 1 ? 'ignore' : undefined);
    await stack.close();
    expect([0, 1].map((lun) => isHandedOver(record(), lun))).toEqual([true, false]);
  });

  it('answers no client any more, and does not report an absent disk as flushed', async () => {
    node.setLun(NAME, 1, volatileDisk('two'));
    const stack = await attach(null, { keepDevices: true });
    await write(stack);
    node.setLun(NAME, 1, null);
    await stack.close();
    expect([0, 1].map((lun) => isHandedOver(record(), lun))).toEqual([true, false]);
    expect(readdirSync(folder)).toEqual(['state']);
  });

  it('an attach that ends while its target is away does not mark its record', async () => {
    const stack = await attach(0, { keepDevices: true });
    await write(stack);
    await server.close();
    await vi.waitUntil(() => events.some((each) => 'to' in each && each.to === 'reconnecting'));
    await stack.close();
    expect(isHandedOver(record(), 0)).toBe(false);
  });

  it('a boot session is left in the same way, whichever process ends it', async () => {
    const stack = await attach(0, { boot: true });
    await stack.close();
    expect(record()).toMatchObject({ sessionType: 'boot', handedOver: true });
  });
});

describe('attach that ends', () => {
  it('a logout leaves no record behind, and the next attach is not refused', async () => {
    const first = await attach(0);
    await expect(attach(0)).rejects.toMatchObject({ exitCode: 15, code: 'ERR_SESSION_EXISTS' });
    await first.close();
    await first.closed;
    expect(names()).toEqual([]);
    const second = await attach(0);
    expect(second.sessionId).not.toBe(first.sessionId);
  });

  it('an attach that could not log in keeps its ISID for the next one', async () => {
    await expect(attach(7)).rejects.toMatchObject({ exitCode: 21 });
    expect(names()).toEqual([]);
    const { port } = server;
    await server.close();
    await expect(attach(0)).rejects.toThrow('ECONNREFUSED');
    const { isid, sessionId } = record();
    server = await startTargetServer(node, { port });
    const stack = await attach(0);
    expect([record().isid, stack.sessionId]).toEqual([isid, sessionId]);
  });

  it('an attach that a signal ends before it is ready rejects with the reason of the signal', async () => {
    node.faults.onCommand = () => 'ignore';
    const reason = new Error('interrupted');
    const signal = AbortSignal.abort(reason);
    const url = { host: '127.0.0.1', port: server.port, targetName: NAME, lun: 0 };
    const plan = { exportPlan: { kind: 'sockets', directory: folder }, warnings: [] } as const;
    const options = { ...SESSION_OPTIONS, boot: false };
    const stateDirectory = join(folder, 'state');
    const hooks = { onEvent: () => undefined, signal };
    await expect(attachBy({ ...plan, stateDirectory }, url, options, hooks)).rejects.toBe(reason);
  });
});

describe('a LUN that is new at the target', () => {
  it('a new LUN is attached if the whole target was asked for and the target reports it', async () => {
    const stack = await attach(null);
    expect(stack.exports.map(({ lun }) => lun)).toEqual([0]);
    node.setLun(NAME, 1, volatileDisk('two'));
    await nbdsh(uriOf(stack), ['h.pread(4096, 0)']);
    await vi.waitUntil(() => stack.exports.length === 2, 10_000);
    expect(
      record()
        .disks.map(({ lun }) => lun)
        .sort(),
    ).toEqual([0, 1]);
  });

  it('a new LUN is left alone if another one was asked for', async () => {
    const stack = await attach(0);
    node.setLun(NAME, 1, volatileDisk('two'));
    await nbdsh(uriOf(stack), ['h.pread(4096, 0)', 'h.pread(4096, 0)']);
    expect(stack.exports.map(({ lun }) => lun)).toEqual([0]);
  });
});
