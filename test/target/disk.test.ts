import { describe, expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';

const KIB = 1024;
const fill = (length: number, byte: number): Buffer => Buffer.alloc(length, byte);

describe('a disk in memory', () => {
  it('a disk of 16 TiB reads zeros everywhere and keeps what is written at its end', () => {
    const sizeBytes = 16 * KIB ** 4;
    const disk = TargetDisk.ram({ sizeBytes, blockSizeBytes: 4096 });
    disk.write(sizeBytes - 4096, fill(4096, 0x5a));
    expect(disk.read(sizeBytes - 8192, 8192)).toEqual(
      Buffer.concat([fill(4096, 0), fill(4096, 0x5a)]),
    );
    expect(disk.extent(0, sizeBytes)).toEqual({ mapped: false, length: sizeBytes - 4096 });
  });

  it('the disk maps and unmaps by 4 KiB, and zeroes smaller parts', () => {
    const disk = TargetDisk.ram({ sizeBytes: 1 << 20 });
    disk.write(60 * KIB, fill(16 * KIB, 1));
    disk.unmap(64 * KIB, 4 * KIB + 512);
    expect(disk.extent(60 * KIB, 1 << 19)).toEqual({ mapped: true, length: 4 * KIB });
    expect(disk.extent(64 * KIB, 1 << 19)).toEqual({ mapped: false, length: 4 * KIB });
    expect(disk.extent(68 * KIB, 1 << 19)).toEqual({ mapped: true, length: 8 * KIB });
    expect(disk.read(68 * KIB, 1024)).toEqual(Buffer.concat([fill(512, 0), fill(512, 1)]));
  });

  it('the disk grows with zeros and loses its end by shrinking', () => {
    const disk = TargetDisk.ram({ sizeBytes: 8192 });
    disk.write(4096, fill(4096, 7));
    disk.resize(4096);
    disk.resize(16384);
    expect(disk.sizeBytes).toBe(16384);
    expect(disk.read(0, 16384)).toEqual(fill(16384, 0));
  });
});

describe('a volatile write cache', () => {
  const cached = (): TargetDisk => TargetDisk.ram({ sizeBytes: 1 << 20, writeCache: 'volatile' });

  it('a power loss loses exactly what was not flushed', () => {
    const disk = cached();
    disk.write(0, fill(1024, 1));
    disk.flush();
    disk.write(512, fill(1024, 2));
    expect(disk.unflushedBytes).toBe(1024);
    disk.powerLoss();
    expect(disk.read(0, 1536)).toEqual(Buffer.concat([fill(1024, 1), fill(512, 0)]));
  });

  it('a power loss keeps a FUA write, also one over unflushed blocks', () => {
    const disk = cached();
    disk.write(0, fill(1536, 1));
    disk.write(512, fill(512, 2), { fua: true });
    disk.powerLoss();
    expect(disk.read(0, 1536)).toEqual(Buffer.concat([fill(512, 0), fill(512, 2), fill(512, 0)]));
  });

  it('a power loss brings back what an unflushed UNMAP or WRITE SAME covered', () => {
    const disk = cached();
    disk.write(0, fill(8192, 3));
    disk.flush();
    disk.unmap(0, 1 << 20);
    disk.writeSame(8192, 4096, fill(512, 9));
    disk.powerLoss();
    expect(disk.read(0, 12288)).toEqual(Buffer.concat([fill(8192, 3), fill(4096, 0)]));
  });

  it('a power loss may keep some blocks and lose others', () => {
    const disk = cached();
    disk.write(0, fill(1536, 4));
    disk.powerLoss((lba) => lba === 1);
    expect(disk.read(0, 1536)).toEqual(Buffer.concat([fill(512, 0), fill(512, 4), fill(512, 0)]));
  });
});
