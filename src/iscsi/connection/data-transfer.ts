import type { LunField } from '../../scsi/command.js';
import { DataInBit, RESERVED_TAG } from '../pdu/pdu.js';
import {
  type DataOutFields,
  NO_LUN,
  type ScsiCommandFields,
  writeDataOut,
  writeScsiCommand,
} from '../pdu/pdu-request.js';
import type { ResponseHeader } from '../pdu/pdu-response.js';
import type { PduWriter } from '../pdu/pdu-writer.js';
import type { SessionParameters } from '../pdu/session-parameters.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';
import type { Task } from './task-table.js';

// Argument objects that every command uses again: the data path makes none.
const commandFields: ScsiCommandFields = {
  lun: NO_LUN,
  initiatorTaskTag: 0,
  cmdSN: 0,
  expStatSN: 0,
  final: true,
  read: false,
  write: false,
  expectedDataTransferLength: 0,
  immediateDataLength: 0,
  cdb: Buffer.alloc(16),
};
const dataOutFields: DataOutFields = {
  lun: NO_LUN,
  initiatorTaskTag: 0,
  targetTransferTag: 0,
  expStatSN: 0,
  final: true,
  dataSN: 0,
  bufferOffset: 0,
  dataLength: 0,
};

/**
 * Sends the SCSI Command PDU of `task` with the immediate and unsolicited data that was agreed
 * (RFC 7143 §4.2.5.2 (Data Transfer Overview); ImmediateData §13.11, InitialR2T §13.10).
 */
export function sendCommand(
  writer: PduWriter,
  task: Task,
  parameters: SessionParameters,
  expStatSN: number,
): void {
  const command = task.command;
  if (command === null) return;
  const isWrite = command.direction === 'write';
  const length = command.transferLength;
  let unsolicited = 0;
  let immediate = 0;
  if (isWrite) {
    const firstBurst = Math.min(parameters.firstBurstLength, length);
    if (parameters.immediateData) {
      immediate = Math.min(firstBurst, parameters.targetMaxRecvDataSegmentLength);
    }
    unsolicited = parameters.initialR2T ? immediate : firstBurst;
  }
  const at = writer.begin();
  commandFields.lun = command.lun;
  commandFields.initiatorTaskTag = task.initiatorTaskTag;
  commandFields.cmdSN = task.cmdSN;
  commandFields.expStatSN = expStatSN;
  commandFields.final = unsolicited === immediate;
  commandFields.read = command.direction === 'read';
  commandFields.write = isWrite;
  commandFields.expectedDataTransferLength = length;
  commandFields.immediateDataLength = immediate;
  commandFields.cdb = command.cdb;
  writeScsiCommand(writer.out, at, commandFields);
  writer.end(at);
  if (immediate > 0 && command.dataOut !== null) {
    writer.dataSlice(command.dataOut, command.dataOutStart, immediate);
  }
  task.bytesDone = immediate;
  if (unsolicited > immediate) {
    sendDataOut(writer, task, {
      parameters,
      expStatSN,
      targetTransferTag: RESERVED_TAG,
      length: unsolicited - immediate,
    });
  }
}

type Sequence = {
  readonly parameters: SessionParameters;
  readonly expStatSN: number;
  readonly targetTransferTag: number;
  readonly length: number;
};

/** One sequence of Data-Out PDUs from where the task stands; DataSN starts at 0 in each. */
function sendDataOut(writer: PduWriter, task: Task, sequence: Sequence): void {
  const command = task.command;
  if (command === null || command.dataOut === null) return;
  // RFC 7143 §11.7.7 (DataSegmentLength): whole 4-byte words, unless the F bit is set.
  const segmentMax = sequence.parameters.targetMaxRecvDataSegmentLength & ~3;
  let left = sequence.length;
  let dataSN = 0;
  while (left > 0) {
    const take = Math.min(left, segmentMax);
    left -= take;
    const at = writer.begin();
    dataOutFields.lun = command.lun;
    dataOutFields.initiatorTaskTag = task.initiatorTaskTag;
    dataOutFields.targetTransferTag = sequence.targetTransferTag;
    dataOutFields.expStatSN = sequence.expStatSN;
    dataOutFields.final = left === 0;
    dataOutFields.dataSN = dataSN;
    dataOutFields.bufferOffset = task.bytesDone;
    dataOutFields.dataLength = take;
    writeDataOut(writer.out, at, dataOutFields);
    writer.end(at);
    writer.dataSlice(command.dataOut, command.dataOutStart + task.bytesDone, take);
    task.bytesDone += take;
    dataSN += 1;
  }
}

/**
 * Answers a Ready To Transfer (RFC 7143 §11.8 (Ready To Transfer (R2T))). DataSequenceInOrder=Yes
 * is always in force, so each R2T continues where the last ended; that also bounds what a hostile
 * target can make us queue to the length of the write.
 */
export function answerR2t(
  writer: PduWriter,
  task: Task,
  r2t: ResponseHeader,
  context: {
    readonly parameters: SessionParameters;
    readonly expStatSN: number;
    readonly quirks: QuirkLog;
  },
): void {
  const command = task.command;
  if (command === null) return;
  const wanted = r2t.desiredDataTransferLength;
  if (writer.queue.isCrowded) refuseR2t('after so many small ones, whose data it does not read');
  if (command.direction !== 'write') refuseR2t('for a command that sends no data');
  if (r2t.targetTransferTag === RESERVED_TAG) refuseR2t('with the reserved Target Transfer Tag');
  if (r2t.dataSegmentLength !== 0) refuseR2t('with a data segment');
  if (wanted === 0) refuseR2t('that asks for no data');
  if (r2t.bufferOffset + wanted > command.transferLength) {
    refuseR2t(`for bytes ${r2t.bufferOffset}+${wanted} of a transfer of ${command.transferLength}`);
  }
  if (r2t.bufferOffset !== task.bytesDone) {
    refuseR2t(`at offset ${r2t.bufferOffset} where ${task.bytesDone} is next`);
  }
  const { parameters, expStatSN, quirks } = context;
  if (r2t.lunUpper !== command.lun.upper || r2t.lunLower !== command.lun.lower) {
    if (r2t.lunUpper !== 0 || r2t.lunLower !== 0) refuseR2t('for another LUN than its command');
    quirks.met('r2t-lun', 'R2Ts of the target have LUN 0 where that of their command is another');
  }
  if (wanted > parameters.maxBurstLength) {
    quirks.met('r2t-burst', 'R2Ts of the target ask for more than MaxBurstLength; they get it');
  }
  if (r2t.dataSN !== task.expectedDataSN) {
    quirks.met('r2t-number', 'R2Ts of the target are misnumbered; their offsets count');
  }
  task.expectedDataSN += 1;
  const { targetTransferTag } = r2t;
  sendDataOut(writer, task, { parameters, expStatSN, targetTransferTag, length: wanted });
}

function refuseR2t(why: string): never {
  throw brokenRule('r2t', `R2T ${why}`);
}

/**
 * RFC 7143 §4.2.5.3 (Tags and Integrity Checks): the LUN is that of the command. Without a Target
 * Transfer Tag the field is reserved, and a zero in it is how many targets fill what is reserved.
 */
function checkDataInLun(lun: LunField, dataIn: ResponseHeader): void {
  if (dataIn.targetTransferTag === RESERVED_TAG) return;
  const { lunUpper, lunLower } = dataIn;
  if (lunUpper === lun.upper && lunLower === lun.lower) return;
  const isReserved = (dataIn.flags & DataInBit.acknowledge) === 0;
  if (isReserved && lunUpper === 0 && lunLower === 0) return;
  refuseDataIn('for another LUN than its command');
}

/** GOOD, CONDITION MET, INTERMEDIATE, INTERMEDIATE-CONDITION MET (SAM-2 §5.3.1). */
const STATUSES_WITH_DATA: ReadonlySet<number> = new Set([0x00, 0x04, 0x10, 0x14]);

/**
 * RFC 7143 §11.7.3 (Flags (Byte 1)): the final PDU of a command that ended well may have its
 * status; an exception comes with its sense data in a SCSI Response.
 */
function noteStatus(dataIn: ResponseHeader, quirks: QuirkLog): void {
  if (!dataIn.final) {
    quirks.met('data-in-final', 'the target sends a status with Data-In that is not final');
  }
  if (!STATUSES_WITH_DATA.has(dataIn.status)) {
    quirks.met('data-in-status', 'the target sends an exception with Data-In and without sense');
  }
}

/**
 * Checks the header of a Data-In before its bytes are taken (RFC 7143 §11.7 (SCSI Data-Out and
 * SCSI Data-In)); DataPDUInOrder=Yes is always in force.
 */
export function acceptDataInHeader(task: Task, dataIn: ResponseHeader, quirks: QuirkLog): void {
  const command = task.command;
  if (command === null) return;
  const length = dataIn.dataSegmentLength;
  if (command.direction !== 'read') refuseDataIn('for a command that reads no data');
  if (task.bytesDone + length > command.transferLength) {
    refuseDataIn(
      `of ${length} bytes at ${task.bytesDone} overruns a transfer of ${command.transferLength}`,
    );
  }
  const isNext = dataIn.dataSN === task.expectedDataSN;
  if (length > 0) {
    if (!isNext) refuseDataIn(`number ${dataIn.dataSN} where ${task.expectedDataSN} is next`);
    if (dataIn.bufferOffset !== task.bytesDone) {
      refuseDataIn(`at offset ${dataIn.bufferOffset} where ${task.bytesDone} is next`);
    }
  } else if (!isNext) {
    quirks.met('data-in-number', 'Data-In of the target without data is misnumbered');
  }
  if ((dataIn.flags & DataInBit.status) !== 0) noteStatus(dataIn, quirks);
  checkDataInLun(command.lun, dataIn);
  if (isNext) task.expectedDataSN += 1;
  task.bytesDone += length;
}

function refuseDataIn(why: string): never {
  throw brokenRule('data-in', `Data-In ${why}`);
}
