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
import { brokenRule } from '../quirks/quirks.js';
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
  context: { readonly parameters: SessionParameters; readonly expStatSN: number },
): void {
  const command = task.command;
  if (command === null) return;
  const wanted = r2t.desiredDataTransferLength;
  const refuse = (why: string): never => {
    throw brokenRule('r2t', `R2T ${why}`);
  };
  if (writer.queue.isCrowded) refuse('after so many small ones, whose data it does not read');
  if (command.direction !== 'write') refuse('for a command that sends no data');
  if (r2t.targetTransferTag === RESERVED_TAG) refuse('with the reserved Target Transfer Tag');
  if (r2t.dataSegmentLength !== 0) refuse('with a data segment');
  if (wanted === 0) refuse('that asks for no data');
  if (wanted > context.parameters.maxBurstLength) {
    refuse(`for ${wanted} bytes, over MaxBurstLength ${context.parameters.maxBurstLength}`);
  }
  if (r2t.bufferOffset + wanted > command.transferLength) {
    refuse(`for bytes ${r2t.bufferOffset}+${wanted} of a transfer of ${command.transferLength}`);
  }
  if (r2t.bufferOffset !== task.bytesDone) {
    refuse(`at offset ${r2t.bufferOffset} where ${task.bytesDone} is next`);
  }
  if (r2t.dataSN !== task.expectedDataSN) {
    refuse(`number ${r2t.dataSN} where ${task.expectedDataSN} is next`);
  }
  if (r2t.lunUpper !== command.lun.upper || r2t.lunLower !== command.lun.lower) {
    refuse('for another LUN than its command');
  }
  task.expectedDataSN += 1;
  sendDataOut(writer, task, {
    parameters: context.parameters,
    expStatSN: context.expStatSN,
    targetTransferTag: r2t.targetTransferTag,
    length: wanted,
  });
}

/** GOOD, CONDITION MET, INTERMEDIATE, INTERMEDIATE-CONDITION MET (SAM-2 §5.3.1). */
const STATUSES_WITH_DATA: ReadonlySet<number> = new Set([0x00, 0x04, 0x10, 0x14]);

/**
 * RFC 7143 §4.2.5.3 (Tags and Integrity Checks): the LUN is that of the command. Without a Target
 * Transfer Tag the field is reserved, and a zero in it is how many targets fill what is reserved.
 */
function checkDataInLun(
  lun: LunField,
  dataIn: ResponseHeader,
  refuse: (why: string) => never,
): void {
  if (dataIn.targetTransferTag === RESERVED_TAG) return;
  const { lunUpper, lunLower } = dataIn;
  if (lunUpper === lun.upper && lunLower === lun.lower) return;
  const isReserved = (dataIn.flags & DataInBit.acknowledge) === 0;
  if (isReserved && lunUpper === 0 && lunLower === 0) return;
  refuse('for another LUN than its command');
}

/**
 * Checks the header of a Data-In before its bytes are taken (RFC 7143 §11.7 (SCSI Data-Out and
 * SCSI Data-In)); DataPDUInOrder=Yes is always in force.
 */
export function acceptDataInHeader(task: Task, dataIn: ResponseHeader): void {
  const command = task.command;
  if (command === null) return;
  const refuse = (why: string): never => {
    throw brokenRule('data-in', `Data-In ${why}`);
  };
  const length = dataIn.dataSegmentLength;
  if (command.direction !== 'read') refuse('for a command that reads no data');
  if (dataIn.dataSN !== task.expectedDataSN) {
    refuse(`number ${dataIn.dataSN} where ${task.expectedDataSN} is next`);
  }
  if (length > 0 && dataIn.bufferOffset !== task.bytesDone) {
    refuse(`at offset ${dataIn.bufferOffset} where ${task.bytesDone} is next`);
  }
  if (task.bytesDone + length > command.transferLength) {
    refuse(
      `of ${length} bytes at ${task.bytesDone} overruns a transfer of ${command.transferLength}`,
    );
  }
  if ((dataIn.flags & DataInBit.status) !== 0) {
    if (!dataIn.final) refuse('with status but without the final bit');
    // RFC 7143 §11.7.3 (Flags (Byte 1)): an exception comes with its sense in a SCSI Response.
    if (!STATUSES_WITH_DATA.has(dataIn.status)) refuse(`with SCSI status ${dataIn.status}`);
  }
  checkDataInLun(command.lun, dataIn, refuse);
  task.expectedDataSN += 1;
  task.bytesDone += length;
}
