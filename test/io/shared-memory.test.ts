import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SLAB_BYTES, SlabPool } from '../../src/base/slab.js';
import { shareSlabs } from '../../src/io/native.js';
import { SharedFile, unmapBuffer } from '../../src/io/shared-memory.js';
import { LeftSlabs, SharedSlabs, slabFileBytes } from '../../src/io/shared-slabs.js';
import { cannotMount, MemoryFolder } from '../helpers/memory-folder.js';

const MIB = 1 << 20;

let folder: MemoryFolder;
let path: string;
beforeEach(() => {
  folder = new MemoryFolder();
  path = join(folder.path, 'file');
});
afterEach(() => folder[Symbol.dispose]());

/** Bytes that the file takes of its file system. */
const takenBytes = (file = path) => statSync(file).blocks * 512;

/** VmFlags of the mapping of a file, as `proc_pid_smaps(5)` has them. */
function mappingFlags(file: string): string[] {
  const maps = readFileSync('/proc/self/smaps', 'utf8').split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/);
  const ours = maps.filter((text) => text.includes(file));
  return ours.map((text) => /^VmFlags: (.*)$/m.exec(text)?.[1] ?? '');
}

describe('a shared file', () => {
  it('what is written to its mapping is in the file for everybody who opens it later', () => {
    const file = SharedFile.make(path, 2 * MIB);
    file.reserve(MIB, MIB);
    const bytes = file.map(MIB, MIB);
    bytes.write('retained', 17);
    const left = SharedFile.open(path);
    expect(left.lengthBytes).toBe(2 * MIB);
    expect(left.map(MIB, MIB).toString('latin1', 17, 25)).toBe('retained');
    expect(left.read(MIB + 17, 8).toString()).toBe('retained');
    expect(left.read(0, 4)).toEqual(Buffer.alloc(4));
  });

  it('a shared file is for its user alone, and no core file has its bytes', () => {
    const before = process.umask(0o000);
    const file = SharedFile.make(path, MIB);
    process.umask(before);
    file.reserve(0, MIB);
    const bytes = file.map(0, MIB);
    expect(statSync(path).mode & 0o7777).toBe(0o600);
    const flags = mappingFlags(path);
    expect(flags).toHaveLength(1);
    expect(flags[0]?.split(' ')).toContain('dd');
    expect(bytes).toHaveLength(MIB);
  });

  it('a file that exists already is not taken', () => {
    SharedFile.make(path, MIB);
    expect(() => SharedFile.make(path, MIB)).toThrow('EEXIST');
  });

  it('a shared file takes memory only for what is reserved, and gives back what is punched', () => {
    const file = SharedFile.make(path, 64 * MIB);
    expect(takenBytes()).toBe(0);
    file.reserve(8 * MIB, 2 * MIB);
    expect(takenBytes()).toBe(2 * MIB);
    file.punch(8 * MIB, MIB);
    expect(takenBytes()).toBe(MIB);
    expect(statSync(path).size).toBe(64 * MIB);
  });

  it('bytes of an unmapped buffer are gone, and the file is not mapped any more', async () => {
    const file = SharedFile.make(path, MIB);
    file.reserve(0, MIB);
    const bytes = file.map(0, MIB);
    unmapBuffer(bytes);
    unmapBuffer(bytes);
    expect(bytes).toHaveLength(0);
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
    expect(mappingFlags(path)).toEqual([]);
  });

  it('the owner of a file lives for others until it closes the file', () => {
    const file = SharedFile.make(path, MIB);
    expect(file.tryOwn()).toBe(true);
    const other = SharedFile.open(path);
    expect(other.isOwned()).toBe(true);
    file.close();
    expect(other.isOwned()).toBe(false);
    // Two that look at the same time do not take each other for the owner.
    expect(SharedFile.open(path).isOwned()).toBe(false);
  });

  it('a link, a pipe, a folder and a file that others may read or own are not opened', () => {
    const plain = join(folder.path, 'plain');
    writeFileSync(plain, 'x', { mode: 0o600 });
    symlinkSync(plain, path);
    expect(() => SharedFile.open(path)).toThrow('ELOOP');
    const pipe = join(folder.path, 'pipe');
    execFileSync('mkfifo', ['-m', '0600', pipe]);
    expect(() => SharedFile.open(pipe)).toThrow('is no regular file');
    expect(() => SharedFile.open(folder.path)).toThrow('is no regular file');
    chmodSync(plain, 0o640);
    expect(() => SharedFile.open(plain)).toThrow('has the mode 640');
    chmodSync(plain, 0o600);
    if (process.getuid?.() === 0) {
      chownSync(plain, 65_534, 65_534);
      expect(() => SharedFile.open(plain)).toThrow('belongs to the user 65534');
    }
  });

  it.skipIf(cannotMount)('a reservation without room fails with ENOSPC and takes nothing', () => {
    const file = SharedFile.make(join(folder.mount('small', 2 * MIB), 'file'), 8 * MIB);
    file.reserve(0, MIB);
    expect(() => file.reserve(MIB, 4 * MIB)).toThrow('ENOSPC');
    expect(takenBytes(file.path)).toBe(MIB);
  });

  it('nonsense is refused by the addon', () => {
    const file = SharedFile.make(path, MIB);
    expect(() => file.reserve(-1, 10)).toThrow(RangeError);
    expect(() => file.reserve(0.5, 10)).toThrow(RangeError);
    expect(() => file.map(100, 4096)).toThrow(RangeError);
    expect(() => file.map(0, 2 * MIB)).toThrow('beyond the end');
  });
});

describe('slabs in a shared file', () => {
  function sharedPool(options: { slabsMax: number; idleMax?: number; path?: string }) {
    const pool = new SlabPool(options);
    shareSlabs(pool);
    const told: string[] = [];
    const file = SharedFile.make(options.path ?? path, slabFileBytes(options.slabsMax));
    const slabs = new SharedSlabs(pool, file, (reason) => told.push(reason));
    return { pool, slabs, told };
  }

  it('a reader of the file sees what is in each slab that was taken, and no other', () => {
    const { pool, slabs } = sharedPool({ slabsMax: 4 });
    const [first, second] = [pool.acquire(), pool.acquire()];
    pool.buffer(first).fill(0x11);
    pool.buffer(second).fill(0x22);
    expect([slabs.isShared(first), slabs.isShared(second)]).toEqual([true, true]);
    const left = LeftSlabs.open(path);
    expect(left.slab(second).equals(pool.buffer(second))).toBe(true);
    expect(left.slab(first)).toHaveLength(SLAB_BYTES);
    expect([left.has(first), left.has(3), left.has(4), left.has(-1)]).toEqual([
      ...[true, false, false, false],
    ]);
    expect(() => left.slab(3)).toThrow('is not in');
    left.close();
  });

  it('slabs that are given back take no memory, and can be used again', () => {
    const { pool } = sharedPool({ slabsMax: 8, idleMax: 0 });
    const before = takenBytes();
    const slabs = Array.from({ length: 8 }, () => pool.acquire());
    for (const slab of slabs) pool.buffer(slab).fill(0xa5);
    expect(takenBytes() - before).toBe(8 * MIB);
    for (const slab of slabs) pool.release(slab);
    expect(takenBytes() - before).toBe(0);
    const again = pool.acquire();
    pool.buffer(again).fill(0x5a);
    expect(
      LeftSlabs.open(path)
        .slab(again)
        .every((byte) => byte === 0x5a),
    ).toBe(true);
  });

  it.skipIf(cannotMount)(
    'a slab without room is ordinary memory, which is reported once, until there is room again',
    () => {
      const place = join(folder.mount('small', 4 * MIB), 'slabs');
      const { pool, slabs, told } = sharedPool({ slabsMax: 8, idleMax: 0, path: place });
      const taken = Array.from({ length: 8 }, () => pool.acquire());
      for (const slab of taken) pool.buffer(slab).fill(slab + 1);
      const shared = taken.filter((slab) => slabs.isShared(slab));
      expect(shared.length).toBeGreaterThanOrEqual(2);
      expect(shared.length).toBeLessThan(4);
      expect(told).toEqual([expect.stringMatching(/^\d of 4 MiB are free$/)]);
      for (const slab of taken) expect(pool.buffer(slab)[SLAB_BYTES - 1]).toBe(slab + 1);
      for (const slab of taken) pool.release(slab);
      const again = Array.from({ length: 8 }, () => pool.acquire());
      expect(again.slice(0, 2).every((slab) => slabs.isShared(slab))).toBe(true);
      for (const slab of again) pool.buffer(slab).fill(0x77);
      const left = LeftSlabs.open(place);
      for (const slab of again) expect(left.has(slab)).toBe(slabs.isShared(slab));
    },
  );

  it('a file of another length is no slab file', () => {
    SharedFile.make(path, 3 * MIB + 1);
    expect(() => LeftSlabs.open(path)).toThrow('has a length of 3145729 bytes');
  });
});
