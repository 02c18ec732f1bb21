import { requireBytes, ScsiDataError, uint64OrNull } from './response-data.js';

export type Capacity = {
  readonly blockSizeBytes: number;
  readonly blockCount: number;
  /** Blocks are formatted with protection information of this type; 0: without. */
  readonly protectionType: number;
  /** A physical block has 2^n logical blocks. */
  readonly physicalBlockExponent: number;
  /** First logical block that starts a physical block. */
  readonly lowestAlignedLba: number;
  /** LBPME: blocks can be unmapped. */
  readonly provisioningManaged: boolean;
  /** LBPRZ: unmapped blocks read as zeros. */
  readonly readsZero: boolean;
};

/** Last address READ CAPACITY(10) can tell: it means "more, ask READ CAPACITY(16)" (SBC-3). */
const LAST_LBA_10_OVERFLOW = 0xffff_ffff;

/** READ CAPACITY(10): 0–3 last LBA, 4–7 block length. `null` where the disk needs (16). */
export function decodeReadCapacity10(data: Buffer): Capacity | null {
  requireBytes(data, 8, 'READ CAPACITY(10)');
  const lastLba = data.readUInt32BE(0);
  if (lastLba === LAST_LBA_10_OVERFLOW) return null;
  return {
    ...size(lastLba, data.readUInt32BE(4)),
    protectionType: 0,
    physicalBlockExponent: 0,
    lowestAlignedLba: 0,
    provisioningManaged: false,
    readsZero: false,
  };
}

/**
 * READ CAPACITY(16): 0–7 last LBA, 8–11 block length, 12 P_TYPE (3–1) and PROT_EN (0),
 * 13 LBPPBE (3–0), 14–15 LBPME (15), LBPRZ (14), LOWEST ALIGNED LBA (13–0).
 */
export function decodeReadCapacity16(data: Buffer): Capacity {
  requireBytes(data, 16, 'READ CAPACITY(16)');
  const protection = data[12] ?? 0;
  const provisioning = data.readUInt16BE(14);
  return {
    ...size(uint64OrNull(data, 0), data.readUInt32BE(8)),
    protectionType: (protection & 0x01) !== 0 ? ((protection >> 1) & 0x07) + 1 : 0,
    physicalBlockExponent: (data[13] ?? 0) & 0x0f,
    lowestAlignedLba: provisioning & 0x3fff,
    provisioningManaged: (provisioning & 0x8000) !== 0,
    readsZero: (provisioning & 0x4000) !== 0,
  };
}

/** NBD clients count bytes in signed numbers of 64 bits. */
const DISK_BYTES_MAX = 2 ** 63;

/**
 * Block clients count in bytes. A number is exact for these far beyond 2^53, as long as they are
 * whole blocks: a multiple of 512 has nine bits less to keep.
 */
function size(
  lastLba: number | null,
  blockSizeBytes: number,
): Pick<Capacity, 'blockSizeBytes' | 'blockCount'> {
  if (blockSizeBytes === 0) throw new ScsiDataError('the capacity has blocks of 0 bytes');
  const blockCount = lastLba === null ? Number.NaN : lastLba + 1;
  if (!Number.isSafeInteger(blockCount) || blockCount * blockSizeBytes >= DISK_BYTES_MAX) {
    throw new ScsiDataError(
      `a disk of 2^53 blocks or 2^63 bytes and more (${blockSizeBytes}-byte blocks)`,
    );
  }
  return { blockSizeBytes, blockCount };
}
