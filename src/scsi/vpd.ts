import { asciiField, requireBytes, ScsiDataError, uint64OrNull } from './response-data.js';

/** Vital product data pages this product reads (SPC-4 §7.8, SBC-3). */
export const VpdPage = {
  supportedPages: 0x00,
  unitSerialNumber: 0x80,
  deviceIdentification: 0x83,
  blockLimits: 0xb0,
  blockDeviceCharacteristics: 0xb1,
  logicalBlockProvisioning: 0xb2,
} as const;

const VPD_HEADER_BYTES = 4;

/**
 * Bytes of a page without its header: 0 qualifier and type, 1 PAGE CODE, 2–3 PAGE LENGTH.
 * What was cut off by the allocation length is missing. ScsiDataError where it is another page,
 * as some devices send standard data when they do not know EVPD. The result shares memory.
 */
export function vpdPageContent(data: Buffer, page: number): Buffer {
  const name = `VPD page ${page.toString(16).padStart(2, '0')}h`;
  requireBytes(data, VPD_HEADER_BYTES, name);
  if (data[1] !== page) {
    throw new ScsiDataError(`${name} was asked for, page ${(data[1] ?? 0).toString(16)}h came`);
  }
  return data.subarray(VPD_HEADER_BYTES, VPD_HEADER_BYTES + data.readUInt16BE(2));
}

/** Page 00h: the codes of the pages there are. */
export function decodeSupportedPages(data: Buffer): number[] {
  return [...vpdPageContent(data, VpdPage.supportedPages)];
}

/** Page 80h: the serial number; empty where the device has none. */
export function decodeUnitSerialNumber(data: Buffer): string {
  const content = vpdPageContent(data, VpdPage.unitSerialNumber);
  return asciiField(content, 0, content.length);
}

export type BlockLimits = {
  /** WRITE SAME of 0 blocks is refused. */
  readonly writeSameNonZero: boolean;
  /** 0: COMPARE AND WRITE is not there. */
  readonly compareAndWriteBlocksMax: number;
  /** 0: not told; so for the next two. */
  readonly optimalGranularityBlocks: number;
  readonly transferBlocksMax: number;
  readonly optimalTransferBlocks: number;
  /** 0: no UNMAP; FFFFFFFFh: no limit. So for the next one. */
  readonly unmapBlocksMax: number;
  readonly unmapDescriptorsMax: number;
  /** 0: not told. */
  readonly unmapGranularityBlocks: number;
  /** First block of a granule; `null`: not told. */
  readonly unmapAlignmentBlocks: number | null;
  /** 0: not told; `null`: over 2^53-1. */
  readonly writeSameBlocksMax: number | null;
};

/** Page B0h of 60 bytes after its header; older, shorter ones lack the fields at the end. */
export function decodeBlockLimits(data: Buffer): BlockLimits {
  const content = vpdPageContent(data, VpdPage.blockLimits);
  // SBC-2's page ends after the optimal transfer length.
  requireBytes(content, 12, 'the block limits page');
  const page = Buffer.alloc(60);
  content.copy(page, 0, 0, 60);
  const alignment = page.readUInt32BE(28);
  return {
    writeSameNonZero: ((page[0] ?? 0) & 0x01) !== 0,
    compareAndWriteBlocksMax: page[1] ?? 0,
    optimalGranularityBlocks: page.readUInt16BE(2),
    transferBlocksMax: page.readUInt32BE(4),
    optimalTransferBlocks: page.readUInt32BE(8),
    unmapBlocksMax: page.readUInt32BE(16),
    unmapDescriptorsMax: page.readUInt32BE(20),
    unmapGranularityBlocks: page.readUInt32BE(24),
    // Bit 31 is UGAVALID.
    unmapAlignmentBlocks: alignment >= 0x8000_0000 ? alignment - 0x8000_0000 : null,
    writeSameBlocksMax: uint64OrNull(page, 32),
  };
}

export type BlockCharacteristics = {
  /** 0: not told; 1: does not rotate; 401h and more: rotations per minute. */
  readonly mediumRotationRate: number;
  /** Nominal form factor: 1 5.25", 2 3.5", 3 2.5", 4 1.8", 5 less. */
  readonly formFactor: number;
};

/** Page B1h: 4–5 MEDIUM ROTATION RATE, 7 NOMINAL FORM FACTOR (bits 3–0). */
export function decodeBlockCharacteristics(data: Buffer): BlockCharacteristics {
  const content = vpdPageContent(data, VpdPage.blockDeviceCharacteristics);
  requireBytes(content, 4, 'the block device characteristics page');
  return { mediumRotationRate: content.readUInt16BE(0), formFactor: (content[3] ?? 0) & 0x0f };
}

export type BlockProvisioning = {
  readonly thresholdExponent: number;
  readonly unmap: boolean;
  readonly writeSame16Unmap: boolean;
  readonly writeSame10Unmap: boolean;
  /** LBPRZ: an odd number: unmapped blocks read as zeros; 2: as a vendor's pattern. */
  readonly readZeros: number;
  readonly anchor: boolean;
  /** 0 not told, 1 resource, 2 thin. */
  readonly provisioningType: number;
};

/**
 * Page B2h: 4 threshold exponent, 5 LBPU (7), LBPWS (6), LBPWS10 (5), LBPRZ (4–2), ANC_SUP (1),
 * 6 PROVISIONING TYPE (2–0).
 */
export function decodeBlockProvisioning(data: Buffer): BlockProvisioning {
  const content = vpdPageContent(data, VpdPage.logicalBlockProvisioning);
  requireBytes(content, 3, 'the logical block provisioning page');
  const flags = content[1] ?? 0;
  return {
    thresholdExponent: content[0] ?? 0,
    unmap: (flags & 0x80) !== 0,
    writeSame16Unmap: (flags & 0x40) !== 0,
    writeSame10Unmap: (flags & 0x20) !== 0,
    readZeros: (flags >> 2) & 0x07,
    anchor: (flags & 0x02) !== 0,
    provisioningType: (content[2] ?? 0) & 0x07,
  };
}
