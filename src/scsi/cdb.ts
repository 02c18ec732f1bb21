import { invariant } from '../base/errors.js';
import { Opcode, ServiceActionIn16 } from './opcodes.js';

/**
 * Writers of command descriptor blocks. Each takes the 16 zeroed bytes of a ScsiCommand's `cdb`,
 * sets what differs from zero and allocates nothing. Logical block addresses are exact up to
 * 2^53-1; a value that does not fit its field is a bug of the caller.
 */

const FUA = 0x08;
const DPO = 0x10;
const UINT32_MAX = 0xffff_ffff;
/** Blocks one (10) command moves at most: its TRANSFER LENGTH has 16 bits (SBC-3). */
const BLOCKS_10_MAX = 0xffff;

/** READ(10), or READ(16) where the range needs it (SBC-3). */
export function writeReadCdb(
  cdb: Buffer,
  lba: number,
  blockCount: number,
  fua = false,
  dpo = false,
): void {
  const flags = (fua ? FUA : 0) | (dpo ? DPO : 0);
  if (fits10(lba, blockCount)) writeRange10(cdb, Opcode.read10, lba, blockCount);
  else writeRange16(cdb, Opcode.read16, lba, blockCount);
  cdb[1] = flags;
}

/** WRITE(10), or WRITE(16) where the range needs it (SBC-3). */
export function writeWriteCdb(
  cdb: Buffer,
  lba: number,
  blockCount: number,
  fua = false,
  dpo = false,
): void {
  const flags = (fua ? FUA : 0) | (dpo ? DPO : 0);
  if (fits10(lba, blockCount)) writeRange10(cdb, Opcode.write10, lba, blockCount);
  else writeRange16(cdb, Opcode.write16, lba, blockCount);
  cdb[1] = flags;
}

/**
 * SYNCHRONIZE CACHE(10), or (16) where the range needs it (SBC-3). A `blockCount`
 * of 0 means from `lba` to the end, so 0 and 0 is the whole medium. IMMED stays 0: GOOD status
 * has to mean that the blocks are on the medium.
 */
export function writeSynchronizeCacheCdb(cdb: Buffer, lba: number, blockCount: number): void {
  if (fits10(lba, blockCount)) writeRange10(cdb, Opcode.synchronizeCache10, lba, blockCount);
  else writeRange16(cdb, Opcode.synchronizeCache16, lba, blockCount);
}

/**
 * WRITE SAME(16) (SBC-3). With `noDataOut` (NDOB) there is no Data-Out buffer and zeros
 * are written; without it the buffer holds one block.
 */
export function writeWriteSame16Cdb(
  cdb: Buffer,
  lba: number,
  blockCount: number,
  options: { readonly unmap: boolean; readonly noDataOut: boolean },
): void {
  // A count of 0 would mean "to the end of the disk": no caller requests that.
  invariant(blockCount > 0, 'WRITE SAME of no blocks would mean all blocks up to the end');
  writeRange16(cdb, Opcode.writeSame16, lba, blockCount);
  cdb[1] = (options.unmap ? 0x08 : 0) | (options.noDataOut ? 0x01 : 0);
}

/** UNMAP (SBC-3) with a parameter list of `parameterListBytes` as Data-Out. */
export function writeUnmapCdb(cdb: Buffer, parameterListBytes: number): void {
  invariant(fits(parameterListBytes, 0xffff), `UNMAP list of ${parameterListBytes} bytes`);
  cdb[0] = Opcode.unmap;
  cdb.writeUInt16BE(parameterListBytes, 7);
}

type BlockExtent = { readonly lba: number; readonly blockCount: number };

const UNMAP_HEADER_BYTES = 8;
const UNMAP_DESCRIPTOR_BYTES = 16;
/** Descriptors one UNMAP can carry: its list length has 16 bits. */
export const UNMAP_DESCRIPTORS_MAX = Math.floor(
  (0xffff - UNMAP_HEADER_BYTES) / UNMAP_DESCRIPTOR_BYTES,
);

/** Bytes of an UNMAP parameter list with `descriptorCount` extents. */
function unmapParameterListBytes(descriptorCount: number): number {
  return UNMAP_HEADER_BYTES + descriptorCount * UNMAP_DESCRIPTOR_BYTES;
}

/**
 * The UNMAP parameter list (SBC-3), a new Buffer:
 * 0–1 UNMAP DATA LENGTH (all that follow), 2–3 UNMAP BLOCK DESCRIPTOR DATA LENGTH, 4–7 reserved,
 * then per extent 8 bytes LBA, 4 bytes block count, 4 reserved.
 */
export function unmapParameterList(extents: readonly BlockExtent[]): Buffer {
  invariant(extents.length <= UNMAP_DESCRIPTORS_MAX, `UNMAP of ${extents.length} extents`);
  const list = Buffer.alloc(unmapParameterListBytes(extents.length));
  list.writeUInt16BE(list.length - 2, 0);
  list.writeUInt16BE(list.length - UNMAP_HEADER_BYTES, 2);
  let at = UNMAP_HEADER_BYTES;
  for (const { lba, blockCount } of extents) {
    invariant(fits(blockCount, UINT32_MAX), `UNMAP extent of ${blockCount} blocks`);
    writeLba64(list, at, lba);
    list.writeUInt32BE(blockCount, at + 8);
    at += UNMAP_DESCRIPTOR_BYTES;
  }
  return list;
}

/** GET LBA STATUS (SBC-3): service action 12h of SERVICE ACTION IN(16). */
export function writeGetLbaStatusCdb(cdb: Buffer, lba: number, allocationBytes: number): void {
  writeRange16(cdb, Opcode.serviceActionIn16, lba, allocationBytes);
  cdb[1] = ServiceActionIn16.getLbaStatus;
}

/** READ CAPACITY(10) (SBC-3); answers 8 bytes. */
export function writeReadCapacity10Cdb(cdb: Buffer): void {
  cdb[0] = Opcode.readCapacity10;
}

/** READ CAPACITY(16) (SBC-3): service action 10h of SERVICE ACTION IN(16). */
export function writeReadCapacity16Cdb(cdb: Buffer, allocationBytes: number): void {
  writeRange16(cdb, Opcode.serviceActionIn16, 0, allocationBytes);
  cdb[1] = ServiceActionIn16.readCapacity16;
}

/** INQUIRY (SPC-4); `vpdPage` null asks for the standard data. */
export function writeInquiryCdb(
  cdb: Buffer,
  vpdPage: number | null,
  allocationBytes: number,
): void {
  invariant(fits(allocationBytes, 0xffff), `INQUIRY allocation of ${allocationBytes} bytes`);
  invariant(vpdPage === null || fits(vpdPage, 0xff), `VPD page ${vpdPage}`);
  cdb[0] = Opcode.inquiry;
  cdb[1] = vpdPage === null ? 0 : 0x01;
  cdb[2] = vpdPage ?? 0;
  cdb.writeUInt16BE(allocationBytes, 3);
}

/**
 * MODE SENSE(6) (SPC-4) for the current values of `page` (3Fh: all). DBD is set, as no
 * block descriptor is wanted where the capacity is read with READ CAPACITY.
 */
export function writeModeSense6Cdb(cdb: Buffer, page: number, allocationBytes: number): void {
  invariant(fits(page, 0x3f) && fits(allocationBytes, 0xff), `mode page ${page} in 6 bytes`);
  cdb[0] = Opcode.modeSense6;
  cdb[1] = 0x08;
  cdb[2] = page;
  cdb[4] = allocationBytes;
}

/** MODE SENSE(10) (SPC-4), as `writeModeSense6Cdb`. */
export function writeModeSense10Cdb(cdb: Buffer, page: number, allocationBytes: number): void {
  invariant(fits(page, 0x3f) && fits(allocationBytes, 0xffff), `mode page ${page} in 10 bytes`);
  cdb[0] = Opcode.modeSense10;
  cdb[1] = 0x08;
  cdb[2] = page;
  cdb.writeUInt16BE(allocationBytes, 7);
}

/** REPORT LUNS (SPC-4). SELECT REPORT 0: all but the well-known logical units. */
export function writeReportLunsCdb(cdb: Buffer, allocationBytes: number, selectReport = 0): void {
  invariant(fits(allocationBytes, UINT32_MAX), `REPORT LUNS allocation of ${allocationBytes}`);
  cdb[0] = Opcode.reportLuns;
  cdb[2] = selectReport;
  cdb.writeUInt32BE(allocationBytes, 6);
}

/** TEST UNIT READY (SPC-4): all zeros. */
export function writeTestUnitReadyCdb(cdb: Buffer): void {
  cdb[0] = Opcode.testUnitReady;
}

function fits(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}

/** True where every block of the range has an address of 32 bits and the count has 16. */
function fits10(lba: number, blockCount: number): boolean {
  return blockCount <= BLOCKS_10_MAX && lba + blockCount <= UINT32_MAX;
}

/** Bytes: 0 opcode, 2–5 LBA, 7–8 count. */
function writeRange10(cdb: Buffer, opcode: number, lba: number, count: number): void {
  invariant(fits(lba, UINT32_MAX) && fits(count, 0xffff), 'a range beyond a 10-byte CDB');
  cdb[0] = opcode;
  cdb.writeUInt32BE(lba, 2);
  cdb.writeUInt16BE(count, 7);
}

/** Bytes: 0 opcode, 2–9 LBA, 10–13 count. */
function writeRange16(cdb: Buffer, opcode: number, lba: number, count: number): void {
  invariant(fits(count, UINT32_MAX), 'a count beyond a 16-byte CDB');
  cdb[0] = opcode;
  writeLba64(cdb, 2, lba);
  cdb.writeUInt32BE(count, 10);
}

function writeLba64(buffer: Buffer, at: number, lba: number): void {
  invariant(Number.isSafeInteger(lba) && lba >= 0, 'a logical block address beyond 2^53');
  buffer.writeUInt32BE(Math.floor(lba / 0x1_0000_0000), at);
  buffer.writeUInt32BE(lba >>> 0, at + 4);
}
