import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { disconnectIndex, NBD_SERVER_FLAG, NbdKernelDevice } from '../../src/io/nbd-device.js';
import type { NbdAddon } from '../../src/io/nbd-netlink.js';
import { kernelSupport } from '../../src/io/nbd-support.js';
import { findByIdentifier, isConfigured } from '../../src/io/nbd-sysfs.js';
import {
  fileStore,
  type Responder,
  ramStore,
  respond,
  type Store,
} from './nbd-device.responder.mjs';

const MIB = 1 << 20;
const SIZE = 4 * MIB;
const ADDON = resolve('build/Release/iscsi_nbd.node');
const addon = createRequire(import.meta.url)(ADDON) as NbdAddon;
const run = promisify(execFile);

let serving: Responder | null = null;
let device: NbdKernelDevice | null = null;
let child: ChildProcess | null = null;
let directory = '';

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'nbd-device-'));
});

afterEach(async () => {
  child?.kill('SIGKILL');
  child = null;
  await run('umount', ['-q', directory]).catch(() => {});
  await device?.disconnect({ force: true });
  device = null;
  serving = null;
  await rm(directory, { recursive: true });
});

function serve(store: Store): (fd: number) => Responder {
  return (fd) => {
    serving = respond(fd, store);
    return serving;
  };
}

async function connect(
  store: Store,
  extra: { sizeBytes?: number; index?: number; deadConnTimeoutSeconds?: number } = {},
) {
  device = await NbdKernelDevice.connect(addon, {
    sizeBytes: SIZE,
    blockSizeBytes: 512,
    serverFlags: NBD_SERVER_FLAG.flush | NBD_SERVER_FLAG.trim,
    identifier: 'test lun 0',
    deadConnTimeoutSeconds: 600,
    serve: serve(store),
    ...extra,
  });
  return device;
}

async function attribute(index: number, name: string): Promise<string> {
  return (await readFile(`/sys/block/nbd${index}/${name}`, 'utf8')).trim();
}

async function sizeOf(path: string): Promise<number> {
  return Number((await run('blockdev', ['--getsize64', path])).stdout);
}

function dd(...operands: string[]): Promise<unknown> {
  return run('dd', ['status=none', ...operands]);
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Leaves `bytes` dirty in the kernel's cache: a process keeps the device open behind the writer. */
async function writeCached(path: string, bytes: Buffer): Promise<void> {
  child = spawn('sh', ['-c', 'exec 3<"$0" && echo open && exec cat', path], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(child.stdout!, 'data');
  const from = join(directory, 'from');
  await writeFile(from, bytes);
  await dd(`if=${from}`, `of=${path}`, 'bs=1M', 'conv=notrunc');
}

/** A server process of its own, to be killed; resolves with the index of its device. */
async function startServer(file: string, identifier: string): Promise<number> {
  const program = resolve('test/vm/nbd-device.responder.mjs');
  const size = String(SIZE);
  child = spawn(process.execPath, [program, ADDON, file, size, identifier], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await once(child.stdout!, 'data');
  return Number(/index (\d+)/.exec(String(line))![1]);
}

describe('a kernel NBD device', () => {
  it('this kernel supports NBD devices', async () => {
    expect(await kernelSupport(addon)).toEqual({ supported: true });
  });

  it('the device has the size, the block size and the queue of its connection', async () => {
    const { index, path, settingsRefused } = await connect(ramStore(SIZE));
    expect(path).toBe(`/dev/nbd${index}`);
    expect(await sizeOf(path)).toBe(SIZE);
    expect((await run('blockdev', ['--getss', path])).stdout.trim()).toBe('512');
    expect(settingsRefused).toEqual([]);
    expect(await attribute(index, 'queue/io_timeout')).toBe('1500');
    expect(await attribute(index, 'queue/max_sectors_kb')).toBe('1024');
    expect(await attribute(index, 'queue/scheduler')).toContain('[none]');
    expect(await attribute(index, 'queue/rotational')).toBe('0');
    expect(await attribute(index, 'backend')).toBe('test lun 0');
  });

  it('the device carries what another process writes and reads', async () => {
    const store = ramStore(SIZE);
    const { path } = await connect(store);
    const bytes = randomBytes(SIZE);
    const [from, to] = [join(directory, 'from'), join(directory, 'to')];
    await writeFile(from, bytes);
    await dd(`if=${from}`, `of=${path}`, 'bs=1M', 'oflag=direct');
    expect(sha256(store.memory)).toBe(sha256(bytes));
    await dd(`if=${path}`, `of=${to}`, 'bs=1M', 'iflag=direct');
    expect(sha256(await readFile(to))).toBe(sha256(bytes));
  });

  it('the device is found by its identifier while it is connected, and only then', async () => {
    const { index, path } = await connect(ramStore(SIZE));
    expect(await findByIdentifier('test lun 0')).toEqual({
      index,
      path,
      identifier: 'test lun 0',
    });
    expect(await findByIdentifier('test lun')).toBeNull();
    await device?.disconnect({ force: false });
    expect(await findByIdentifier('test lun 0')).toBeNull();
    expect(await isConfigured(index)).toBe(false);
    expect(serving?.seen.ended).toBe(true);
  });

  it('a second connection of the same index is refused as busy (exit code 28)', async () => {
    const first = await connect(ramStore(SIZE));
    const second = connect(ramStore(SIZE), { index: first.index });
    await expect(second).rejects.toMatchObject({ name: 'UsageError', exitCode: 28 });
    expect(await sizeOf(first.path)).toBe(SIZE);
  });

  it('the device comes back under the same index after a disconnect', async () => {
    const first = await connect(ramStore(SIZE));
    await first.disconnect({ force: false });
    const second = await connect(ramStore(2 * MIB), { index: first.index, sizeBytes: 2 * MIB });
    expect(second.index).toBe(first.index);
    expect(await sizeOf(second.path)).toBe(2 * MIB);
  });

  it('the device grows and shrinks while it is connected', async () => {
    const { path } = await connect(ramStore(8 * MIB));
    await device?.resize(8 * MIB);
    expect(await sizeOf(path)).toBe(8 * MIB);
    await device?.resize(2 * MIB);
    expect(await sizeOf(path)).toBe(2 * MIB);
  });

  it('a read-only device rejects writes', async () => {
    const { path } = await connect(ramStore(SIZE));
    await device?.setReadOnly(true);
    await expect(dd('if=/dev/zero', `of=${path}`, 'count=1', 'oflag=direct')).rejects.toThrow();
    await device?.setReadOnly(false);
    await dd('if=/dev/zero', `of=${path}`, 'count=1', 'oflag=direct');
  });
});

describe('NbdKernelDevice.disconnect', () => {
  it('a disconnect writes the cached data of the kernel before it removes the device', async () => {
    const store = ramStore(SIZE);
    const { path, index } = await connect(store);
    const bytes = randomBytes(SIZE);
    await writeCached(path, bytes);
    await device?.disconnect({ force: false });
    expect(sha256(store.memory)).toBe(sha256(bytes));
    expect(serving?.seen.flushes).toBeGreaterThan(0);
    expect(await isConfigured(index)).toBe(true);
    child?.stdin?.end();
    await once(child!, 'exit');
    await expect.poll(() => isConfigured(index)).toBe(false);
  });

  it('a disconnect is refused while the device is mounted, naming where (exit code 28)', async () => {
    const { path, index } = await connect(ramStore(SIZE));
    await run('mke2fs', ['-q', '-F', path]);
    await run('mount', [path, directory]);
    const refused = device?.disconnect({ force: false });
    await expect(refused).rejects.toMatchObject({ name: 'UsageError', exitCode: 28 });
    await expect(refused).rejects.toThrow(`nbd${index} is mounted on ${directory}`);
    await writeFile(join(directory, 'file'), 'it goes on working');
    await run('umount', [directory]);
    await device?.disconnect({ force: false });
  });

  it('a forced disconnect ends a device whose full socket is not read; waiting requests get EIO', async () => {
    const sizeBytes = 64 * MIB;
    const { path, index } = await connect(ramStore(sizeBytes), { sizeBytes });
    await sizeOf(path);
    serving?.stopReading();
    const writer = dd('if=/dev/zero', `of=${path}`, 'bs=48M', 'count=1', 'oflag=direct');
    const failed = expect(writer).rejects.toThrow('Input/output error');
    // 48 requests of 1 MiB are more than the link holds: it is full when no more of them start.
    let before = 0;
    const isStuck = async () => {
      const writes = Number((await attribute(index, 'inflight')).split(/\s+/)[1]);
      const stuck = writes > 0 && writes === before;
      before = writes;
      return stuck;
    };
    await expect.poll(isStuck, { timeout: 20_000, interval: 300 }).toBe(true);
    const startedAt = performance.now();
    await device?.disconnect({ force: true });
    expect(performance.now() - startedAt).toBeLessThan(3000);
    await failed;
  });

  it('a forced disconnect overtakes one that waits for a silent server', async () => {
    const { path } = await connect(ramStore(SIZE));
    await writeCached(path, randomBytes(SIZE));
    serving?.stopReading();
    const waiting = device?.disconnect({ force: false });
    const failed = expect(waiting).rejects.toMatchObject({ name: 'NbdKernelError', errno: 'EIO' });
    await expect.poll(() => attribute(device!.index, 'inflight')).not.toMatch(/ 0$/);
    await device?.disconnect({ force: true });
    await failed;
  });
});

describe('the death of the serving process', () => {
  it('a writer survives the death: it sees no error and loses nothing', async () => {
    const file = join(directory, 'backing');
    await writeFile(file, '');
    await truncate(file, SIZE);
    const bytes = randomBytes(SIZE);
    const from = join(directory, 'from');
    await writeFile(from, bytes);
    const index = await startServer(file, 'survivor');
    const writer = dd(`if=${from}`, `of=/dev/nbd${index}`, 'bs=4k', 'oflag=direct');
    await expect
      .poll(async () => Number((await attribute(index, 'stat')).split(/\s+/)[4]), {
        timeout: 20_000,
      })
      .toBeGreaterThan(100);
    child?.kill('SIGKILL');
    await once(child!, 'exit');
    const found = await findByIdentifier('survivor');
    expect(found?.index).toBe(index);
    device = await NbdKernelDevice.takeOver(addon, {
      index,
      sizeBytes: SIZE,
      blockSizeBytes: 512,
      serverFlags: NBD_SERVER_FLAG.flush,
      identifier: 'survivor',
      deadConnTimeoutSeconds: 600,
      serve: serve(fileStore(file)),
    });
    await writer;
    expect(serving?.seen.writes).toBeGreaterThan(0);
    expect(sha256(await readFile(file))).toBe(sha256(bytes));
  });

  it('requests fail after deadConnTimeoutSeconds, and the device can be disconnected', async () => {
    const { path, index } = await connect(ramStore(SIZE), { deadConnTimeoutSeconds: 2 });
    serving?.shutDown();
    const beganAtMs = performance.now();
    const reading = dd(`if=${path}`, 'of=/dev/null', 'bs=4k', 'count=1', 'iflag=direct');
    await expect(reading).rejects.toThrow('Input/output error');
    expect(performance.now() - beganAtMs).toBeGreaterThan(1500);
    await disconnectIndex(addon, index);
    expect(await isConfigured(index)).toBe(false);
  });

  it('a device with a living server is not taken over (28)', async () => {
    const file = join(directory, 'backing');
    await writeFile(file, '');
    await truncate(file, SIZE);
    const index = await startServer(file, 'alive');
    const options = {
      index,
      sizeBytes: SIZE,
      blockSizeBytes: 512,
      serverFlags: 0,
      deadConnTimeoutSeconds: 600,
      serve: serve(ramStore(SIZE)),
    };
    const impostor = NbdKernelDevice.takeOver(addon, { ...options, identifier: 'alive' });
    await expect(impostor).rejects.toMatchObject({ name: 'UsageError', exitCode: 28 });
    const stranger = NbdKernelDevice.takeOver(addon, { ...options, identifier: 'other' });
    await expect(stranger).rejects.toMatchObject({ errno: 'EINVAL' });
    expect(serving).toBeNull();
    expect(await sizeOf(`/dev/nbd${index}`)).toBe(SIZE);
    child?.kill('SIGKILL');
    await once(child!, 'exit');
    await disconnectIndex(addon, index);
    expect(await isConfigured(index)).toBe(false);
  });
});
