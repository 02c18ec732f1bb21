import { productError } from '../base/errors.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { decodeLbaStatus } from '../scsi/lba-status.js';
import type { BlockExtentStatus, BlockRequest } from './block-device.js';

/**
 * Extents of a request from the disk's answer. Blocks it tells nothing of count as data, which is
 * true of any block.
 */
export function extentsOrData(
  data: Buffer,
  { offsetBytes, lengthBytes }: BlockRequest,
  { blockSizeBytes, thin }: DiskFacts,
): BlockExtentStatus[] {
  const asked = { offsetBytes, lengthBytes, blockSizeBytes, holesReadZero: thin.readsZero };
  try {
    return extentsFromLbaStatus(data, asked);
  } catch (error) {
    productError(error);
    return [{ lengthBytes, hole: false, zero: false }];
  }
}

/**
 * The part of a GET LBA STATUS answer that a request asked about, as NBD extents. At least one
 * extent comes back and together they cover no more than the request; what the answer does not
 * reach is left for the client to ask again.
 */
function extentsFromLbaStatus(
  data: Buffer,
  asked: {
    readonly offsetBytes: number;
    readonly lengthBytes: number;
    readonly blockSizeBytes: number;
    /** Unmapped blocks read as zeros. */
    readonly holesReadZero: boolean;
  },
): BlockExtentStatus[] {
  const { offsetBytes, lengthBytes, blockSizeBytes, holesReadZero } = asked;
  const result: BlockExtentStatus[] = [];
  let at = offsetBytes;
  const end = offsetBytes + lengthBytes;
  for (const extent of decodeLbaStatus(data, offsetBytes / blockSizeBytes)) {
    const extentEnd = Math.min(end, (extent.lba + extent.blockCount) * blockSizeBytes);
    if (extentEnd <= at) continue;
    const hole = extent.status === 'deallocated';
    const zero = (hole || extent.status === 'anchored') && holesReadZero;
    result.push({ lengthBytes: extentEnd - at, hole, zero });
    at = extentEnd;
  }
  if (result.length === 0) result.push({ lengthBytes, hole: false, zero: false });
  return result;
}
