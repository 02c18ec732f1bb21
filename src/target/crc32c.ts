/**
 * CRC32C of RFC 7143 §13.1 (HeaderDigest and DataDigest), generator 0x11edc6f41 in its reflected
 * form. The target computes it by itself so that it can judge the initiator's digests.
 */
const REFLECTED_POLYNOMIAL = 0x82f63b78;
const TABLES = 8;

function makeTables(): Uint32Array {
  const tables = new Uint32Array(TABLES * 256);
  for (let byte = 0; byte < 256; byte += 1) {
    let value = byte;
    for (let bit = 0; bit < 8; bit += 1) {
      value = value & 1 ? (value >>> 1) ^ REFLECTED_POLYNOMIAL : value >>> 1;
    }
    tables[byte] = value;
  }
  for (let at = 256; at < TABLES * 256; at += 1) {
    const before = tables[at - 256] ?? 0;
    tables[at] = (before >>> 8) ^ (tables[before & 0xff] ?? 0);
  }
  return tables;
}

const tables = makeTables();

/** CRC32C as an unsigned number; on the wire it stands least significant byte first. */
export function targetCrc32c(...parts: readonly Uint8Array[]): number {
  let crc = 0xffffffff;
  for (const part of parts) crc = update(crc, part);
  return (crc ^ 0xffffffff) >>> 0;
}

function update(start: number, bytes: Uint8Array): number {
  const table = tables;
  let crc = start;
  let at = 0;
  // Eight bytes a step: one table lookup per byte, without a dependency between the lookups.
  for (const end = bytes.length - 7; at < end; at += 8) {
    const low =
      crc ^
      ((bytes[at] as number) |
        ((bytes[at + 1] as number) << 8) |
        ((bytes[at + 2] as number) << 16) |
        ((bytes[at + 3] as number) << 24));
    crc =
      (table[1792 + (low & 0xff)] as number) ^
      (table[1536 + ((low >>> 8) & 0xff)] as number) ^
      (table[1280 + ((low >>> 16) & 0xff)] as number) ^
      (table[1024 + (low >>> 24)] as number) ^
      (table[768 + (bytes[at + 4] as number)] as number) ^
      (table[512 + (bytes[at + 5] as number)] as number) ^
      (table[256 + (bytes[at + 6] as number)] as number) ^
      (table[bytes[at + 7] as number] as number);
  }
  for (; at < bytes.length; at += 1) {
    crc = (crc >>> 8) ^ (table[(crc ^ (bytes[at] as number)) & 0xff] as number);
  }
  return crc;
}

/** The four digest bytes as they stand on the wire. */
export function digestBytes(...parts: readonly Uint8Array[]): Buffer {
  const digest = Buffer.allocUnsafe(4);
  digest.writeUInt32LE(targetCrc32c(...parts), 0);
  return digest;
}
