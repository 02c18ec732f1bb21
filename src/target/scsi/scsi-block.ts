import { type TargetDisk, TRANSFER_BYTES_MAX } from '../disk.js';
import type { TargetStats } from '../stats.js';
import {
  checkCondition,
  invalidFieldInCdb,
  invalidFieldInParameterList,
  lbaOutOfRange,
  parameterListLengthError,
  writeProtected,
} from './sense.js';

type BlockRange = { readonly lba: number; readonly blockCount: number };

/** What a command wants from the initiator, and what it does when it has it. */
export type ScsiPlan = {
  readonly dataOutBytes: number;
  /** `dataOut` may be shorter than asked for when the initiator announced less. */
  run(dataOut: Buffer): Buffer | null;
};

/** A 64-bit block address as a number; beyond 2^53 it is outside every disk anyway. */
function wide(cdb: Buffer, offset: number): number {
  return Number(cdb.readBigUInt64BE(offset));
}

/** LBA and TRANSFER LENGTH by the CDB's size (SPC-4 §4.2.5); null for commands without them. */
export function rangeOf(cdb: Buffer): BlockRange | null {
  switch ((cdb[0] ?? 0) >> 5) {
    case 1:
    case 2:
      return { lba: cdb.readUInt32BE(2), blockCount: cdb.readUInt16BE(7) };
    case 4:
      return { lba: wide(cdb, 2), blockCount: cdb.readUInt32BE(10) };
    case 5:
      return { lba: cdb.readUInt32BE(2), blockCount: cdb.readUInt32BE(6) };
    default:
      return null;
  }
}

function checkedRange(cdb: Buffer, disk: TargetDisk): BlockRange {
  const range = rangeOf(cdb);
  if (range === null) throw invalidFieldInCdb();
  if (range.lba + range.blockCount > disk.blockCount) throw lbaOutOfRange();
  return range;
}

function transferRange(cdb: Buffer, disk: TargetDisk): BlockRange {
  if ((cdb[1] ?? 0) & 0xe0) throw invalidFieldInCdb(); // no protection information
  const range = checkedRange(cdb, disk);
  if (range.lba === disk.blockCount && range.lba > 0) throw lbaOutOfRange();
  const most = disk.limits.transferBlocksMax || TRANSFER_BYTES_MAX / disk.blockSizeBytes;
  if (range.blockCount > most) throw invalidFieldInCdb();
  return range;
}

/** READ(10), READ(12), READ(16) (SBC-3 §5.8 on). */
export function planRead(cdb: Buffer, disk: TargetDisk): ScsiPlan {
  const range = transferRange(cdb, disk);
  const size = disk.blockSizeBytes;
  return {
    dataOutBytes: 0,
    run: () => disk.read(range.lba * size, range.blockCount * size),
  };
}

/** WRITE(10), WRITE(12), WRITE(16) (SBC-3 §5.26 on). */
export function planWrite(cdb: Buffer, disk: TargetDisk, stats: TargetStats): ScsiPlan {
  const range = transferRange(cdb, disk);
  if (disk.readOnly) throw writeProtected();
  const size = disk.blockSizeBytes;
  const fua = ((cdb[1] ?? 0) & 0x08) !== 0;
  return {
    dataOutBytes: range.blockCount * size,
    run: (dataOut) => {
      const whole = dataOut.length - (dataOut.length % size);
      disk.write(range.lba * size, dataOut.subarray(0, whole), { fua });
      if (fua) stats.fuaWrites += 1;
      return null;
    },
  };
}

/** SYNCHRONIZE CACHE(10) and (16) (SBC-3 §5.22): no blocks means to the end of the disk. */
export function planFlush(cdb: Buffer, disk: TargetDisk, stats: TargetStats): ScsiPlan {
  const range = checkedRange(cdb, disk);
  const size = disk.blockSizeBytes;
  const all = range.blockCount === 0 && range.lba === 0;
  const blockCount = range.blockCount === 0 ? disk.blockCount - range.lba : range.blockCount;
  return {
    dataOutBytes: 0,
    run: () => {
      stats.flushes += 1;
      if (all) disk.flush();
      else disk.flush({ offset: range.lba * size, length: blockCount * size });
      return null;
    },
  };
}

const UNMAP_HEADER_BYTES = 8;
const UNMAP_DESCRIPTOR_BYTES = 16;

/** UNMAP (SBC-3 §5.25). */
export function planUnmap(cdb: Buffer, disk: TargetDisk, stats: TargetStats): ScsiPlan {
  if ((cdb[1] ?? 0) & 0x01) throw invalidFieldInCdb(); // ANCHOR
  if (disk.readOnly) throw writeProtected();
  const listBytes = cdb.readUInt16BE(7);
  return {
    dataOutBytes: listBytes,
    run: (list) => {
      for (const range of unmapRanges(list, listBytes, disk)) {
        disk.unmap(range.lba * disk.blockSizeBytes, range.blockCount * disk.blockSizeBytes);
        stats.unmapBytes += range.blockCount * disk.blockSizeBytes;
      }
      return null;
    },
  };
}

function unmapRanges(list: Buffer, listBytes: number, disk: TargetDisk): BlockRange[] {
  if (listBytes === 0) return [];
  if (list.length < UNMAP_HEADER_BYTES) throw parameterListLengthError();
  const descriptorBytes = Math.min(list.readUInt16BE(2), list.length - UNMAP_HEADER_BYTES);
  const count = Math.floor(descriptorBytes / UNMAP_DESCRIPTOR_BYTES);
  if (count > disk.limits.unmapDescriptorsMax) throw invalidFieldInParameterList();
  const ranges: BlockRange[] = [];
  let blocks = 0;
  for (let index = 0; index < count; index += 1) {
    const at = UNMAP_HEADER_BYTES + index * UNMAP_DESCRIPTOR_BYTES;
    const range = { lba: wide(list, at), blockCount: list.readUInt32BE(at + 8) };
    if (range.lba + range.blockCount > disk.blockCount) throw lbaOutOfRange();
    blocks += range.blockCount;
    ranges.push(range);
  }
  if (blocks > disk.limits.unmapBlocksMax) throw invalidFieldInParameterList();
  return ranges;
}

/** WRITE SAME(10) and (16) (SBC-3 §5.38): UNMAP, ANCHOR refused, NDOB only in (16). */
export function planWriteSame(cdb: Buffer, disk: TargetDisk, stats: TargetStats): ScsiPlan {
  const flags = cdb[1] ?? 0;
  const unmap = (flags & 0x08) !== 0;
  const noDataOut = cdb[0] === 0x93 && (flags & 0x01) !== 0;
  if (flags & 0xf0 || (unmap && !disk.thin)) throw invalidFieldInCdb();
  const asked = checkedRange(cdb, disk);
  if (asked.lba === disk.blockCount) throw lbaOutOfRange();
  const blockCount = asked.blockCount === 0 ? disk.blockCount - asked.lba : asked.blockCount;
  const most = disk.limits.writeSameBlocksMax;
  if (most > 0 && blockCount > most) throw invalidFieldInCdb();
  if (disk.readOnly) throw writeProtected();
  const size = disk.blockSizeBytes;
  return {
    dataOutBytes: noDataOut ? 0 : size,
    run: (dataOut) => {
      if (!noDataOut && dataOut.length !== size) throw invalidFieldInCdb();
      const zeros = noDataOut || dataOut.every((byte) => byte === 0);
      if (zeros && unmap) {
        disk.unmap(asked.lba * size, blockCount * size);
        stats.unmapBytes += blockCount * size;
      } else {
        const block = noDataOut ? Buffer.alloc(size) : dataOut;
        disk.writeSame(asked.lba * size, blockCount * size, block);
      }
      stats.writeSameBytes += blockCount * size;
      return null;
    },
  };
}

/** Descriptors of one GET LBA STATUS answer at most. */
const STATUS_DESCRIPTORS_MAX = 256;

/** GET LBA STATUS (SBC-3 §5.6): as many descriptors as the allocation length holds. */
export function lbaStatus(cdb: Buffer, disk: TargetDisk): Buffer {
  if (!disk.thin) throw checkCondition(0x05, 0x20);
  const start = wide(cdb, 2);
  const allocationBytes = cdb.readUInt32BE(10);
  if (start >= disk.blockCount) throw lbaOutOfRange();
  const room = Math.floor((allocationBytes - 8) / 16);
  const most = Math.max(1, Math.min(STATUS_DESCRIPTORS_MAX, room));
  const size = disk.blockSizeBytes;
  const descriptors: Buffer[] = [];
  let lba = start;
  while (lba < disk.blockCount && descriptors.length < most) {
    const bytesMax = Math.min((disk.blockCount - lba) * size, 0xffffffff * size);
    const extent = disk.extent(lba * size, bytesMax);
    const blockCount = Math.max(1, Math.floor(extent.length / size));
    const descriptor = Buffer.alloc(16);
    descriptor.writeBigUInt64BE(BigInt(lba), 0);
    descriptor.writeUInt32BE(blockCount, 8);
    descriptor[12] = extent.mapped ? 0 : 1;
    descriptors.push(descriptor);
    lba += blockCount;
  }
  const head = Buffer.alloc(8);
  head.writeUInt32BE(descriptors.length * 16 + 4, 0);
  return Buffer.concat([head, ...descriptors]).subarray(0, allocationBytes);
}

/** READ CAPACITY(10) (SBC-3 §5.12): FFFFFFFFh when the disk is larger than it can say. */
export function capacity10(disk: TargetDisk): Buffer {
  const data = Buffer.alloc(8);
  data.writeUInt32BE(Math.min(disk.blockCount - 1, 0xffffffff), 0);
  data.writeUInt32BE(disk.reportedBlockSizeBytes ?? disk.blockSizeBytes, 4);
  return data;
}

/** READ CAPACITY(16) (SBC-3 §5.13), with LBPME and LBPRZ for a thin disk. */
export function capacity16(cdb: Buffer, disk: TargetDisk): Buffer {
  const data = Buffer.alloc(32);
  data.writeBigUInt64BE(BigInt(disk.blockCount - 1), 0);
  data.writeUInt32BE(disk.reportedBlockSizeBytes ?? disk.blockSizeBytes, 8);
  data[13] = Math.log2(Math.max(1, 4096 / disk.blockSizeBytes));
  if (disk.thin) data[14] = 0xc0;
  return data.subarray(0, cdb.readUInt32BE(10));
}
