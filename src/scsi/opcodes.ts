/** Operation codes of the commands this initiator sends (SPC-4, SBC-3). */
export const Opcode = {
  testUnitReady: 0x00,
  requestSense: 0x03,
  inquiry: 0x12,
  modeSense6: 0x1a,
  readCapacity10: 0x25,
  read10: 0x28,
  write10: 0x2a,
  synchronizeCache10: 0x35,
  unmap: 0x42,
  modeSense10: 0x5a,
  read16: 0x88,
  write16: 0x8a,
  synchronizeCache16: 0x91,
  writeSame16: 0x93,
  serviceActionIn16: 0x9e,
  reportLuns: 0xa0,
  maintenanceIn: 0xa3,
  maintenanceOut: 0xa4,
} as const;

/** Service actions of SERVICE ACTION IN(16), byte 1 bits 4…0. */
export const ServiceActionIn16 = {
  readCapacity16: 0x10,
  getLbaStatus: 0x12,
} as const;

/** Names of operation codes, also of ones that are not sent but may be met in traces. */
const OPCODE_NAMES: ReadonlyMap<number, string> = new Map([
  [0x00, 'TEST UNIT READY'],
  [0x03, 'REQUEST SENSE'],
  [0x04, 'FORMAT UNIT'],
  [0x08, 'READ(6)'],
  [0x0a, 'WRITE(6)'],
  [0x12, 'INQUIRY'],
  [0x15, 'MODE SELECT(6)'],
  [0x16, 'RESERVE(6)'],
  [0x17, 'RELEASE(6)'],
  [0x1a, 'MODE SENSE(6)'],
  [0x1b, 'START STOP UNIT'],
  [0x1e, 'PREVENT ALLOW MEDIUM REMOVAL'],
  [0x25, 'READ CAPACITY(10)'],
  [0x28, 'READ(10)'],
  [0x2a, 'WRITE(10)'],
  [0x2e, 'WRITE AND VERIFY(10)'],
  [0x2f, 'VERIFY(10)'],
  [0x35, 'SYNCHRONIZE CACHE(10)'],
  [0x41, 'WRITE SAME(10)'],
  [0x42, 'UNMAP'],
  [0x4d, 'LOG SENSE'],
  [0x55, 'MODE SELECT(10)'],
  [0x5a, 'MODE SENSE(10)'],
  [0x5e, 'PERSISTENT RESERVE IN'],
  [0x5f, 'PERSISTENT RESERVE OUT'],
  [0x83, 'THIRD-PARTY COPY OUT'],
  [0x84, 'THIRD-PARTY COPY IN'],
  [0x88, 'READ(16)'],
  [0x89, 'COMPARE AND WRITE'],
  [0x8a, 'WRITE(16)'],
  [0x8e, 'WRITE AND VERIFY(16)'],
  [0x8f, 'VERIFY(16)'],
  [0x91, 'SYNCHRONIZE CACHE(16)'],
  [0x93, 'WRITE SAME(16)'],
  [0x9e, 'SERVICE ACTION IN(16)'],
  [0xa0, 'REPORT LUNS'],
  [0xa3, 'MAINTENANCE IN'],
  [0xa4, 'MAINTENANCE OUT'],
  [0xa8, 'READ(12)'],
  [0xaa, 'WRITE(12)'],
]);

/** Names of the service actions of operation codes that have them: opcode << 8 | action. */
const SERVICE_ACTION_NAMES: ReadonlyMap<number, string> = new Map([
  [0x9e10, 'READ CAPACITY(16)'],
  [0x9e12, 'GET LBA STATUS'],
  [0xa30a, 'REPORT TARGET PORT GROUPS'],
  [0xa30c, 'REPORT SUPPORTED OPERATION CODES'],
]);

/** The standard's name of a command, e.g. `READ(16)`; unknown ones as `opcode C5h`. */
export function opcodeName(opcode: number, serviceAction?: number): string {
  if (serviceAction !== undefined) {
    const name = SERVICE_ACTION_NAMES.get((opcode << 8) | serviceAction);
    if (name !== undefined) return name;
  }
  return (
    OPCODE_NAMES.get(opcode) ?? `opcode ${opcode.toString(16).toUpperCase().padStart(2, '0')}h`
  );
}

/** `opcodeName` of a CDB, looking up its service action where the command has them. */
export function cdbName(cdb: Uint8Array): string {
  return opcodeName(cdb[0] ?? 0, (cdb[1] ?? 0) & 0x1f);
}
