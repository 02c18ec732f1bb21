import { requireBytes, ScsiDataError, uint64OrNull } from './response-data.js';

type ProvisioningStatus = 'mapped' | 'deallocated' | 'anchored' | 'unknown';

type LbaStatusExtent = {
  readonly lba: number;
  readonly blockCount: number;
  readonly status: ProvisioningStatus;
};

const HEADER_BYTES = 8;
const DESCRIPTOR_BYTES = 16;
const STATUS_NAMES: readonly ProvisioningStatus[] = ['mapped', 'deallocated', 'anchored'];

/**
 * Extents of a GET LBA STATUS answer (SBC-3): 0–3 PARAMETER DATA LENGTH (bytes after it),
 * 4–7 reserved, then per extent 8 bytes LBA, 4 bytes count, 1 byte provisioning status, 3 reserved.
 * The extents have to follow each other from `startLba` on or, for the first, hold it; otherwise,
 * or where one is empty, ScsiDataError. At most the descriptors that arrived are returned.
 */
export function decodeLbaStatus(data: Buffer, startLba: number): LbaStatusExtent[] {
  requireBytes(data, HEADER_BYTES, 'LBA status');
  const end = Math.min(data.length, 4 + data.readUInt32BE(0));
  const extents: LbaStatusExtent[] = [];
  let expected = startLba;
  for (let at = HEADER_BYTES; at + DESCRIPTOR_BYTES <= end; at += DESCRIPTOR_BYTES) {
    const lba = uint64OrNull(data, at);
    const blockCount = data.readUInt32BE(at + 8);
    const first = extents.length === 0;
    if (lba === null || blockCount === 0 || (first ? lba > expected : lba !== expected)) {
      throw new ScsiDataError(`LBA status extent ${extents.length} is not at block ${expected}`);
    }
    if (lba + blockCount <= startLba) {
      throw new ScsiDataError(`LBA status extent at ${lba} ends before block ${startLba}`);
    }
    const status = STATUS_NAMES[(data[at + 12] ?? 0) & 0x0f] ?? 'unknown';
    extents.push({ lba, blockCount, status });
    expected = lba + blockCount;
  }
  return extents;
}
