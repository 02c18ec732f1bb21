/**
 * PDUs of RFC 7143 §11 (iSCSI PDU Formats) from the target's end, written byte by byte for tests:
 * nothing of src/iscsi is used, so that a mistake there cannot hide itself.
 */
import { targetCrc32c } from '../../src/target/crc32c.js';

export const NO_TAG = 0xffffffff;

export type Lun = readonly [upper: number, lower: number];

export type TargetPdu = {
  readonly opcode: number;
  readonly flags?: number;
  readonly byte2?: number;
  readonly byte3?: number;
  readonly lun?: Lun;
  readonly itt?: number;
  readonly ttt?: number;
  readonly statSN?: number;
  readonly expCmdSN?: number;
  readonly maxCmdSN?: number;
  readonly word36?: number;
  readonly word40?: number;
  readonly word44?: number;
  readonly data?: Buffer;
  readonly ahs?: Buffer;
  /** DataSegmentLength to claim instead of the length of `data`. */
  readonly claimedLength?: number;
};

export type Digests = { readonly header: boolean; readonly data: boolean };
export const NO_DIGESTS: Digests = { header: false, data: false };

/** 48 header bytes, AHS, digest, data, padding, digest. */
export function encodePdu(pdu: TargetPdu, digests: Digests = NO_DIGESTS): Buffer {
  const data = pdu.data ?? Buffer.alloc(0);
  const ahs = pdu.ahs ?? Buffer.alloc(0);
  const bhs = Buffer.alloc(48);
  bhs[0] = pdu.opcode;
  bhs[1] = pdu.flags ?? 0x80;
  bhs[2] = pdu.byte2 ?? 0;
  bhs[3] = pdu.byte3 ?? 0;
  bhs[4] = ahs.length / 4;
  bhs.writeUIntBE(pdu.claimedLength ?? data.length, 5, 3);
  bhs.writeUInt32BE(pdu.lun?.[0] ?? 0, 8);
  bhs.writeUInt32BE(pdu.lun?.[1] ?? 0, 12);
  const words = [
    pdu.itt ?? NO_TAG,
    pdu.ttt ?? NO_TAG,
    pdu.statSN ?? 0,
    pdu.expCmdSN ?? 0,
    pdu.maxCmdSN ?? 0,
    pdu.word36 ?? 0,
    pdu.word40 ?? 0,
    pdu.word44 ?? 0,
  ];
  for (const [index, word] of words.entries()) bhs.writeUInt32BE(word >>> 0, 16 + 4 * index);
  const parts = [bhs, ahs];
  if (digests.header) parts.push(digestOf(Buffer.concat([bhs, ahs])));
  if (data.length > 0) {
    const padded = Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
    parts.push(padded);
    if (digests.data) parts.push(digestOf(padded));
  }
  return Buffer.concat(parts);
}

/** Least significant byte first, as RFC 3720 B.4 prints its examples. */
function digestOf(bytes: Buffer): Buffer {
  const digest = Buffer.alloc(4);
  digest.writeUInt32LE(targetCrc32c(bytes));
  return digest;
}

/** One PDU of the initiator, taken apart. */
export type InitiatorPdu = {
  readonly opcode: number;
  readonly immediate: boolean;
  readonly flags: number;
  readonly lun: Lun;
  readonly itt: number;
  /** Target Transfer Tag, Referenced Task Tag, EDTL or CID, by PDU. */
  readonly word20: number;
  readonly cmdSN: number;
  readonly expStatSN: number;
  readonly word32: number;
  readonly word36: number;
  readonly word40: number;
  readonly header: Buffer;
  readonly data: Buffer;
  readonly padding: Buffer;
};

/**
 * Cuts `bytes` into PDUs; `rest` is what does not make one. Digests are checked and a wrong one
 * is an error, for the initiator is what is being tested.
 */
export function decodePdus(
  bytes: Buffer,
  digests: Digests = NO_DIGESTS,
): { readonly pdus: InitiatorPdu[]; readonly rest: Buffer } {
  const pdus: InitiatorPdu[] = [];
  let at = 0;
  while (bytes.length - at >= 48) {
    const header = bytes.subarray(at, at + 48);
    const ahsBytes = (header[4] ?? 0) * 4;
    const length = header.readUIntBE(5, 3);
    const padding = -length & 3;
    const dataAt = at + 48 + ahsBytes + (digests.header ? 4 : 0);
    const end = dataAt + length + padding + (digests.data && length > 0 ? 4 : 0);
    if (bytes.length < end) break;
    if (digests.header) check(bytes, at, at + 48 + ahsBytes, 'header');
    if (digests.data && length > 0) check(bytes, dataAt, dataAt + length + padding, 'data');
    pdus.push({
      opcode: (header[0] ?? 0) & 0x3f,
      immediate: ((header[0] ?? 0) & 0x40) !== 0,
      flags: header[1] ?? 0,
      lun: [header.readUInt32BE(8), header.readUInt32BE(12)],
      itt: header.readUInt32BE(16),
      word20: header.readUInt32BE(20),
      cmdSN: header.readUInt32BE(24),
      expStatSN: header.readUInt32BE(28),
      word32: header.readUInt32BE(32),
      word36: header.readUInt32BE(36),
      word40: header.readUInt32BE(40),
      header: Buffer.from(header),
      data: Buffer.from(bytes.subarray(dataAt, dataAt + length)),
      padding: Buffer.from(bytes.subarray(dataAt + length, dataAt + length + padding)),
    });
    at = end;
  }
  return { pdus, rest: Buffer.from(bytes.subarray(at)) };
}

function check(bytes: Buffer, start: number, end: number, what: string): void {
  const expected = targetCrc32c(bytes.subarray(start, end));
  const sent = bytes.readUInt32LE(end);
  if (sent !== expected) throw new Error(`the ${what} digest sent is ${sent}, not ${expected}`);
}

export function textOf(lines: readonly string[]): Buffer {
  return Buffer.from(lines.map((line) => `${line}\0`).join(''), 'utf8');
}

export function linesOf(pdu: InitiatorPdu): string[] {
  return pdu.data.toString('utf8').split('\0').slice(0, -1);
}

/** SCSI READ(10)/WRITE(10)-independent opcodes of target PDUs. */
export const OP = {
  nopIn: 0x20,
  scsiResponse: 0x21,
  taskManagement: 0x22,
  login: 0x23,
  text: 0x24,
  dataIn: 0x25,
  logout: 0x26,
  r2t: 0x31,
  async: 0x32,
  reject: 0x3f,
} as const;

/** Opcodes of initiator PDUs. */
export const FROM = {
  nopOut: 0x00,
  scsiCommand: 0x01,
  taskManagement: 0x02,
  login: 0x03,
  text: 0x04,
  dataOut: 0x05,
  logout: 0x06,
} as const;

/**
 * What a plain target answers to the operational keys `offered`; `changes` replace or add keys.
 * An offer below its own value is taken; keys that were not offered are left out.
 */
export function operationalAnswer(
  changes: Readonly<Record<string, string>>,
  offered: readonly string[],
): string[] {
  const keys: Record<string, string> = {
    HeaderDigest: 'None',
    DataDigest: 'None',
    MaxRecvDataSegmentLength: '8192',
    DefaultTime2Wait: '0',
    DefaultTime2Retain: '0',
    ErrorRecoveryLevel: '0',
    MaxConnections: '1',
    InitialR2T: 'Yes',
    ImmediateData: 'Yes',
    MaxBurstLength: '262144',
    FirstBurstLength: '65536',
    MaxOutstandingR2T: '1',
    DataPDUInOrder: 'Yes',
    DataSequenceInOrder: 'Yes',
  };
  for (const [key, value] of offered.map((line) => line.split('=') as [string, string])) {
    const own = keys[key];
    const isLess = /Burst|Outstanding/.test(key) && Number(value) < Number(own);
    if (own !== undefined && (isLess || (key === 'ImmediateData' && value === 'No'))) {
      keys[key] = value;
    }
  }
  const isAnswer = (key: string) => offered.some((line) => line.startsWith(`${key}=`));
  for (const key of Object.keys(keys)) if (!isAnswer(key)) delete keys[key];
  Object.assign(keys, changes);
  return Object.entries(keys).map(([key, value]) => `${key}=${value}`);
}
