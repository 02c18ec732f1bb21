import { serialAdd } from '../base/serial32.js';

/**
 * The target's own view of the PDUs of RFC 7143 §11 (iSCSI PDU Formats): what an initiator sends is
 * read field by field from `Pdu.header`, what the target sends is made by one function per PDU.
 * Sequence numbers are stamped last, by `stampNumbers`, because every target PDU has StatSN at
 * byte 24, ExpCmdSN at byte 28 and MaxCmdSN at byte 32.
 */
export const HEADER_BYTES = 48;

/** Reserved value of Initiator Task Tag and Target Transfer Tag. */
export const TARGET_NO_TAG = 0xffffffff;

export const INITIATOR_OPCODE = {
  nopOut: 0x00,
  scsiCommand: 0x01,
  taskManagement: 0x02,
  login: 0x03,
  text: 0x04,
  dataOut: 0x05,
  logout: 0x06,
  snack: 0x10,
} as const;

const TARGET_OPCODE = {
  nopIn: 0x20,
  scsiResponse: 0x21,
  taskManagementResponse: 0x22,
  loginResponse: 0x23,
  textResponse: 0x24,
  dataIn: 0x25,
  logoutResponse: 0x26,
  r2t: 0x31,
  async: 0x32,
  reject: 0x3f,
} as const;

export const FINAL = 0x80;
export const CONTINUE = 0x40;
const IMMEDIATE = 0x40;

/** One PDU from the initiator. The buffers belong to the receiver of the PDU. */
export type Pdu = {
  readonly header: Buffer;
  readonly ahs: Buffer;
  /** Data segment without padding. */
  readonly data: Buffer;
  /** False when a DataDigest was negotiated and does not match. */
  readonly dataDigestGood: boolean;
};

export function opcodeOf(header: Buffer): number {
  return (header[0] ?? 0) & 0x3f;
}

export function isImmediate(header: Buffer): boolean {
  return ((header[0] ?? 0) & IMMEDIATE) !== 0;
}

export function flagsOf(header: Buffer): number {
  return header[1] ?? 0;
}

/** DataSegmentLength, 24 bits at byte 5. */
export function dataSegmentLength(header: Buffer): number {
  return header.readUIntBE(5, 3);
}

export function targetLunField(header: Buffer): Buffer {
  return header.subarray(8, 16);
}

export function taskTag(header: Buffer): number {
  return header.readUInt32BE(16);
}

/** Target Transfer Tag, Referenced Task Tag or EDTL, by PDU. */
export function word20(header: Buffer): number {
  return header.readUInt32BE(20);
}

export function cmdSNOf(header: Buffer): number {
  return header.readUInt32BE(24);
}

export function expStatSNOf(header: Buffer): number {
  return header.readUInt32BE(28);
}

export function padding(length: number): number {
  return -length & 3;
}

function start(opcode: number, flags: number, initiatorTaskTag: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header[0] = opcode;
  header[1] = flags;
  header.writeUInt32BE(initiatorTaskTag, 16);
  return header;
}

/** Writes DataSegmentLength. */
export function setDataSegmentLength(header: Buffer, length: number): void {
  header.writeUIntBE(length, 5, 3);
}

export function stampNumbers(
  header: Buffer,
  numbers: { readonly statSN: number | null; readonly expCmdSN: number; readonly maxCmdSN: number },
): void {
  if (numbers.statSN !== null) header.writeUInt32BE(numbers.statSN, 24);
  header.writeUInt32BE(numbers.expCmdSN, 28);
  header.writeUInt32BE(numbers.maxCmdSN, 32);
}

/** Residual count: positive is an underflow, negative an overflow. */
function setResidual(header: Buffer, residual: number): void {
  if (residual > 0) header[1] = (header[1] ?? 0) | 0x02;
  if (residual < 0) header[1] = (header[1] ?? 0) | 0x04;
  header.writeUInt32BE(Math.abs(residual) >>> 0, 44);
}

/** RFC 7143 §11.4 (SCSI Response). */
export function scsiResponse(fields: {
  readonly initiatorTaskTag: number;
  readonly response: number;
  readonly status: number;
  readonly expDataSN: number;
  readonly residual: number;
}): Buffer {
  const header = start(TARGET_OPCODE.scsiResponse, FINAL, fields.initiatorTaskTag);
  header[2] = fields.response;
  header[3] = fields.status;
  header.writeUInt32BE(fields.expDataSN, 36);
  setResidual(header, fields.residual);
  return header;
}

/** RFC 7143 §11.7 (SCSI Data-Out and SCSI Data-In). `status` collapses the response into it. */
export function dataIn(fields: {
  readonly initiatorTaskTag: number;
  readonly dataSN: number;
  readonly bufferOffset: number;
  readonly final: boolean;
  readonly status: { readonly status: number; readonly residual: number } | null;
}): Buffer {
  const flags = fields.final ? FINAL : 0;
  const header = start(TARGET_OPCODE.dataIn, flags, fields.initiatorTaskTag);
  header.writeUInt32BE(TARGET_NO_TAG, 20);
  header.writeUInt32BE(fields.dataSN, 36);
  header.writeUInt32BE(fields.bufferOffset, 40);
  if (fields.status !== null) {
    header[1] = flags | 0x01;
    header[3] = fields.status.status;
    setResidual(header, fields.status.residual);
  }
  return header;
}

/** RFC 7143 §11.8 (Ready To Transfer (R2T)). */
export function readyToTransfer(fields: {
  readonly lun: Buffer;
  readonly initiatorTaskTag: number;
  readonly targetTransferTag: number;
  readonly r2tSN: number;
  readonly bufferOffset: number;
  readonly desiredBytes: number;
}): Buffer {
  const header = start(TARGET_OPCODE.r2t, FINAL, fields.initiatorTaskTag);
  fields.lun.copy(header, 8);
  header.writeUInt32BE(fields.targetTransferTag, 20);
  header.writeUInt32BE(fields.r2tSN, 36);
  header.writeUInt32BE(fields.bufferOffset, 40);
  header.writeUInt32BE(fields.desiredBytes, 44);
  return header;
}

/** RFC 7143 §11.6 (Task Management Function Response). */
export function taskManagementResponse(initiatorTaskTag: number, response: number): Buffer {
  const header = start(TARGET_OPCODE.taskManagementResponse, FINAL, initiatorTaskTag);
  header[2] = response;
  return header;
}

/** RFC 7143 §11.13 (Login Response). `flags` holds T, C, CSG and NSG. */
export function loginResponse(fields: {
  readonly flags: number;
  readonly isid: Buffer;
  readonly tsih: number;
  readonly initiatorTaskTag: number;
  readonly statusClass: number;
  readonly statusDetail: number;
}): Buffer {
  const header = start(TARGET_OPCODE.loginResponse, fields.flags, fields.initiatorTaskTag);
  fields.isid.copy(header, 8, 0, 6);
  header.writeUInt16BE(fields.tsih, 14);
  header[36] = fields.statusClass;
  header[37] = fields.statusDetail;
  return header;
}

/** RFC 7143 §11.11 (Text Response). */
export function textResponse(fields: {
  readonly flags: number;
  readonly lun: Buffer;
  readonly initiatorTaskTag: number;
  readonly targetTransferTag: number;
}): Buffer {
  const header = start(TARGET_OPCODE.textResponse, fields.flags, fields.initiatorTaskTag);
  fields.lun.copy(header, 8);
  header.writeUInt32BE(fields.targetTransferTag, 20);
  return header;
}

/** RFC 7143 §11.15 (Logout Response). */
export function logoutResponse(fields: {
  readonly initiatorTaskTag: number;
  readonly response: number;
  readonly time2WaitSeconds: number;
  readonly time2RetainSeconds: number;
}): Buffer {
  const header = start(TARGET_OPCODE.logoutResponse, FINAL, fields.initiatorTaskTag);
  header[2] = fields.response;
  header.writeUInt16BE(fields.time2WaitSeconds, 40);
  header.writeUInt16BE(fields.time2RetainSeconds, 42);
  return header;
}

/** RFC 7143 §11.19 (NOP-In). */
export function nopIn(fields: {
  readonly lun: Buffer;
  readonly initiatorTaskTag: number;
  readonly targetTransferTag: number;
}): Buffer {
  const header = start(TARGET_OPCODE.nopIn, FINAL, fields.initiatorTaskTag);
  fields.lun.copy(header, 8);
  header.writeUInt32BE(fields.targetTransferTag, 20);
  return header;
}

/** RFC 7143 §11.17 (Reject); the rejected header travels as data. */
export function reject(reason: number): Buffer {
  const header = start(TARGET_OPCODE.reject, FINAL, TARGET_NO_TAG);
  header[2] = reason;
  return header;
}

/** RFC 7143 §11.9 (Asynchronous Message). */
export function asyncMessage(fields: {
  readonly lun: Buffer;
  readonly event: number;
  readonly vendorCode: number;
  readonly parameters: readonly [number, number, number];
}): Buffer {
  const header = start(TARGET_OPCODE.async, FINAL, TARGET_NO_TAG);
  fields.lun.copy(header, 8);
  header[36] = fields.event;
  header[37] = fields.vendorCode;
  for (const [index, value] of fields.parameters.entries()) {
    header.writeUInt16BE(value, 38 + index * 2);
  }
  return header;
}

/** A counter of 32-bit tags that never gives the reserved one. */
export class TagCounter {
  #last = 0;

  next(): number {
    this.#last = serialAdd(this.#last, 1);
    if (this.#last === TARGET_NO_TAG) this.#last = 1;
    return this.#last;
  }
}
