import type { LunField } from '../../scsi/command.js';
import type { LoginRequest, TextRequest } from './login-pdu.js';
import {
  BHS_BYTES,
  CONTINUE_BIT,
  FINAL_BIT,
  IMMEDIATE_BIT,
  RequestOpcode,
  ScsiCommandBit,
  TASK_ATTRIBUTE_SIMPLE,
} from './pdu.js';

/**
 * Encoders of initiator PDUs. Each writes exactly one 48-byte Basic Header Segment into `out` at
 * `at`; data, padding and digests are the sender's. Nothing here allocates.
 *
 * Common byte map (RFC 7143 §11.2.1 (Basic Header Segment (BHS))):
 *   0 I+opcode · 1 flags · 4 TotalAHSLength · 5–7 DataSegmentLength · 8–15 LUN or own fields
 *   16–19 Initiator Task Tag · 20–23 own · 24–27 CmdSN · 28–31 ExpStatSN · 32–47 own
 */

function begin(out: DataView, at: number, opcode: number, flags: number, dataLength: number): void {
  for (let index = 0; index < BHS_BYTES; index += 4) out.setUint32(at + index, 0);
  out.setUint8(at, opcode);
  out.setUint8(at + 1, flags);
  out.setUint32(at + 4, dataLength);
}

function writeLun(out: DataView, at: number, lun: LunField): void {
  out.setUint32(at + 8, lun.upper);
  out.setUint32(at + 12, lun.lower);
}

export type ScsiCommandFields = {
  lun: LunField;
  initiatorTaskTag: number;
  cmdSN: number;
  expStatSN: number;
  final: boolean;
  read: boolean;
  write: boolean;
  expectedDataTransferLength: number;
  immediateDataLength: number;
  cdb: Buffer;
};

/** RFC 7143 §11.3 (SCSI Command): 20 Expected Data Transfer Length · 32–47 CDB. */
export function writeScsiCommand(out: DataView, at: number, fields: ScsiCommandFields): void {
  const flags =
    TASK_ATTRIBUTE_SIMPLE |
    (fields.final ? FINAL_BIT : 0) |
    (fields.read ? ScsiCommandBit.read : 0) |
    (fields.write ? ScsiCommandBit.write : 0);
  out.setUint8(at, RequestOpcode.scsiCommand);
  out.setUint8(at + 1, flags);
  out.setUint8(at + 2, 0);
  out.setUint8(at + 3, 0);
  out.setUint32(at + 4, fields.immediateDataLength);
  writeLun(out, at, fields.lun);
  out.setUint32(at + 16, fields.initiatorTaskTag);
  out.setUint32(at + 20, fields.expectedDataTransferLength);
  out.setUint32(at + 24, fields.cmdSN);
  out.setUint32(at + 28, fields.expStatSN);
  const cdb = fields.cdb;
  for (let index = 0; index < 16; index += 1) out.setUint8(at + 32 + index, cdb[index] ?? 0);
}

export type DataOutFields = {
  lun: LunField;
  initiatorTaskTag: number;
  targetTransferTag: number;
  expStatSN: number;
  final: boolean;
  dataSN: number;
  bufferOffset: number;
  dataLength: number;
};

/** RFC 7143 §11.7 (SCSI Data-Out and SCSI Data-In): 36 DataSN · 40 Buffer Offset. */
export function writeDataOut(out: DataView, at: number, fields: DataOutFields): void {
  out.setUint8(at, RequestOpcode.dataOut);
  out.setUint8(at + 1, fields.final ? FINAL_BIT : 0);
  out.setUint8(at + 2, 0);
  out.setUint8(at + 3, 0);
  out.setUint32(at + 4, fields.dataLength);
  writeLun(out, at, fields.lun);
  out.setUint32(at + 16, fields.initiatorTaskTag);
  out.setUint32(at + 20, fields.targetTransferTag);
  out.setUint32(at + 24, 0);
  out.setUint32(at + 28, fields.expStatSN);
  out.setUint32(at + 32, 0);
  out.setUint32(at + 36, fields.dataSN);
  out.setUint32(at + 40, fields.bufferOffset);
  out.setUint32(at + 44, 0);
}

type NopOutFields = {
  lun: LunField;
  initiatorTaskTag: number;
  targetTransferTag: number;
  immediate: boolean;
  cmdSN: number;
  expStatSN: number;
  dataLength: number;
};

/** RFC 7143 §11.18 (NOP-Out). */
export function writeNopOut(out: DataView, at: number, fields: NopOutFields): void {
  const opcode = RequestOpcode.nopOut | (fields.immediate ? IMMEDIATE_BIT : 0);
  begin(out, at, opcode, FINAL_BIT, fields.dataLength);
  writeLun(out, at, fields.lun);
  out.setUint32(at + 16, fields.initiatorTaskTag);
  out.setUint32(at + 20, fields.targetTransferTag);
  out.setUint32(at + 24, fields.cmdSN);
  out.setUint32(at + 28, fields.expStatSN);
}

type TaskManagementFields = {
  function: number;
  lun: LunField;
  initiatorTaskTag: number;
  referencedTaskTag: number;
  cmdSN: number;
  expStatSN: number;
  refCmdSN: number;
};

/** RFC 7143 §11.5 (Task Management Function Request); sent immediate. */
export function writeTaskManagement(out: DataView, at: number, fields: TaskManagementFields): void {
  begin(
    out,
    at,
    RequestOpcode.taskManagement | IMMEDIATE_BIT,
    FINAL_BIT | (fields.function & 0x7f),
    0,
  );
  writeLun(out, at, fields.lun);
  out.setUint32(at + 16, fields.initiatorTaskTag);
  out.setUint32(at + 20, fields.referencedTaskTag);
  out.setUint32(at + 24, fields.cmdSN);
  out.setUint32(at + 28, fields.expStatSN);
  out.setUint32(at + 32, fields.refCmdSN);
}

type LogoutFields = {
  reason: number;
  initiatorTaskTag: number;
  cid: number;
  cmdSN: number;
  expStatSN: number;
};

/** RFC 7143 §11.14 (Logout Request); sent immediate, so that a closed window cannot hold it. */
export function writeLogout(out: DataView, at: number, fields: LogoutFields): void {
  begin(out, at, RequestOpcode.logout | IMMEDIATE_BIT, FINAL_BIT | (fields.reason & 0x7f), 0);
  out.setUint32(at + 16, fields.initiatorTaskTag);
  out.setUint16(at + 20, fields.cid);
  out.setUint32(at + 24, fields.cmdSN);
  out.setUint32(at + 28, fields.expStatSN);
}

/** RFC 7143 §11.12 (Login Request): 2 versions · 8 ISID · 14 TSIH · 20 CID. */
export function writeLogin(out: DataView, at: number, fields: LoginRequest): void {
  const flags =
    (fields.transit ? FINAL_BIT : 0) |
    (fields.continued ? CONTINUE_BIT : 0) |
    (fields.currentStage << 2) |
    fields.nextStage;
  begin(out, at, RequestOpcode.login | IMMEDIATE_BIT, flags, fields.data.length);
  out.setUint8(at + 2, fields.versionMax);
  out.setUint8(at + 3, fields.versionMin);
  for (let index = 0; index < 6; index += 1) out.setUint8(at + 8 + index, fields.isid[index] ?? 0);
  out.setUint16(at + 14, fields.tsih);
  out.setUint32(at + 16, fields.initiatorTaskTag);
  out.setUint16(at + 20, fields.cid);
  out.setUint32(at + 24, fields.cmdSN);
  out.setUint32(at + 28, fields.expStatSN);
}

/** RFC 7143 §11.10 (Text Request). */
export function writeText(
  out: DataView,
  at: number,
  fields: TextRequest & { readonly cmdSN: number; readonly expStatSN: number },
): void {
  const flags = (fields.final ? FINAL_BIT : 0) | (fields.continued ? CONTINUE_BIT : 0);
  begin(out, at, RequestOpcode.text, flags, fields.data.length);
  writeLun(out, at, fields.lun);
  out.setUint32(at + 16, fields.initiatorTaskTag);
  out.setUint32(at + 20, fields.targetTransferTag);
  out.setUint32(at + 24, fields.cmdSN);
  out.setUint32(at + 28, fields.expStatSN);
}

/** The LUN of PDUs that carry none. */
export const NO_LUN: LunField = { upper: 0, lower: 0 };
