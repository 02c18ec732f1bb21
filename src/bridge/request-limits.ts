import type { BlockErrno } from '../base/errors.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { BlockRequest, ByteRange } from './block-device.js';

/** Bytes of one READ or WRITE at most where the disk states no limit of its own. */
const TRANSFER_BYTES_MAX = 8 << 20;
/** A READ or WRITE of no more is not refused for its length: no known disk takes less. */
const TRANSFER_BYTES_FLOOR = 64 << 10;
/** Blocks of one WRITE SAME where the disk states no limit: what the (10) form can say. */
const WRITE_SAME_BLOCKS_ASSUMED = 0xffff;

/**
 * Why the request cannot be one to this disk, or null. Outside the disk is EINVAL for writes too:
 * the NBD document ("Error values") would have ENOSPC, but no client should take that for a disk
 * that is full.
 */
export function refusalOf(
  request: BlockRequest,
  disk: {
    readonly sizeBytes: number;
    readonly blockSizeBytes: number;
    readonly readOnly: boolean;
  },
): BlockErrno | null {
  const { operation, offsetBytes, lengthBytes } = request;
  if (operation === 'flush') return null;
  const changes = operation === 'write' || operation === 'writeZeroes' || operation === 'trim';
  if (changes && disk.readOnly) return 'EPERM';
  if (offsetBytes + lengthBytes > disk.sizeBytes) return 'EINVAL';
  const blockSize = disk.blockSizeBytes;
  if (offsetBytes % blockSize !== 0 || lengthBytes % blockSize !== 0) return 'EINVAL';
  return lengthBytes === 0 ? 'EINVAL' : null;
}

/** Bytes of one READ or WRITE at most: whole blocks, at least one. */
export function transferBytesMax({ limits, blockSizeBytes }: DiskFacts): number {
  const bytes = Math.min(limits.maxTransferBlocks * blockSizeBytes, TRANSFER_BYTES_MAX);
  return Math.max(blockSizeBytes, bytes - (bytes % blockSizeBytes));
}

/** True for a READ or WRITE that a disk may have refused because it is long. */
export function canBeSmaller({ lengthBytes }: { readonly lengthBytes: number }): boolean {
  return lengthBytes > TRANSFER_BYTES_FLOOR;
}

/** Bytes of a READ or WRITE at most, after one of `lengthBytes` was refused: whole blocks. */
export function halfOf(lengthBytes: number, blockSizeBytes: number): number {
  const half = Math.max(TRANSFER_BYTES_FLOOR, Math.floor(lengthBytes / 2));
  return half - (half % blockSizeBytes);
}

/** Bytes of one WRITE SAME at most. */
export function writeSameBytesMax({ limits, blockSizeBytes }: DiskFacts): number {
  return (limits.writeSameBlocksMax || WRITE_SAME_BLOCKS_ASSUMED) * blockSizeBytes;
}

/**
 * Bytes of one UNMAP, or of the WRITE SAME that stands for it, at most. Whole granules where one
 * fits, so that a granule is never cut in two and then spared by both halves.
 */
export function trimBytesMax(facts: DiskFacts): number {
  const { limits, blockSizeBytes, thin } = facts;
  const granuleBytes = granuleBlocks(facts) * blockSizeBytes;
  const bytes = thin.unmap
    ? Math.max(1, limits.unmapLbaMax) * blockSizeBytes
    : writeSameBytesMax(facts);
  return bytes < granuleBytes ? bytes : bytes - (bytes % granuleBytes);
}

/**
 * The whole granules inside a trim request, as bytes from its offset: rounded inwards, never more
 * than asked. SBC-3 (Block Limits VPD page): a granule begins where
 * LBA = n × UNMAP GRANULARITY + UNMAP GRANULARITY ALIGNMENT. Empty where none fits.
 */
export function trimRange(request: BlockRequest, facts: DiskFacts): ByteRange {
  const { blockSizeBytes, limits } = facts;
  const granule = granuleBlocks(facts);
  const first = request.offsetBytes / blockSizeBytes;
  const end = first + request.lengthBytes / blockSizeBytes;
  const startBlock = first + modulo(limits.unmapAlignment - first, granule);
  const endBlock = end - modulo(end - limits.unmapAlignment, granule);
  if (endBlock <= startBlock) return { startBytes: 0, endBytes: 0 };
  return {
    startBytes: (startBlock - first) * blockSizeBytes,
    endBytes: (endBlock - first) * blockSizeBytes,
  };
}

function granuleBlocks({ limits }: DiskFacts): number {
  return Math.max(1, limits.unmapGranularity);
}

function modulo(value: number, divisor: number): number {
  return ((value % divisor) + divisor) % divisor;
}
