import type { ScsiCommand, ScsiOutcome } from '../../scsi/command.js';
import { parseSense, SenseKey } from '../../scsi/sense.js';
import { ScsiResponseBit } from '../pdu/pdu.js';
import type { ResponseHeader } from '../pdu/pdu-response.js';
import { brokenRule, type QuirkLog } from '../quirks/quirks.js';
import type { Task } from './task-table.js';

const CHECK_CONDITION = 0x02;

/**
 * Puts a SCSI Response PDU into its command (RFC 7143 §11.4 (SCSI Response)): status and residual,
 * and the sense data from the data segment (§11.4.7.2 (Sense Data)). With a response code other
 * than 0 the status means nothing.
 */
export function readScsiResponse(
  header: ResponseHeader,
  data: Buffer,
  command: ScsiCommand,
  quirks: QuirkLog,
): ScsiOutcome {
  if (header.response !== 0) {
    command.response = header.response;
    return 'failed';
  }
  command.status = header.status;
  command.residual = residualOf(header, command, quirks);
  if (data.length >= 2) {
    const length = Math.min(data.readUInt16BE(0), data.length - 2, command.sense.length);
    data.copy(command.sense, 0, 2, 2 + length);
    command.senseLength = length;
  } else if (header.status === CHECK_CONDITION) {
    quirks.met('check-condition-sense', 'the target sends CHECK CONDITION without sense data');
  }
  return 'answered';
}

/** POWER ON, RESET, OR BUS DEVICE RESET OCCURRED; COMMANDS CLEARED BY ANOTHER INITIATOR (SPC-4). */
const ASCS_OF_CLEARED_TASKS: ReadonlySet<number> = new Set([0x29, 0x2f]);

/**
 * Does the reply say that tasks of this LUN have been cleared? With TAS=0 they are never answered
 * (SAM-5 §5.3.1), so that their state must be queried.
 */
export function saysTasksCleared({ status, sense, senseLength }: ScsiCommand): boolean {
  if (status !== CHECK_CONDITION || senseLength === 0) return false;
  const { senseKey, deferred, asc } = parseSense(sense.subarray(0, senseLength));
  return senseKey === SenseKey.unitAttention && !deferred && ASCS_OF_CLEARED_TASKS.has(asc);
}

/**
 * RFC 7143 §11.4.8 (ExpDataSN): more Data-In PDUs than have come mean that some are missing, which
 * at ErrorRecoveryLevel 0 ends the connection (RFC 7143 §7.9 (Sequence Errors)), unless all the
 * bytes have come. Fewer are no news: many targets leave the field 0. Read commands only.
 */
export function checkExpDataSN(task: Task, header: ResponseHeader, quirks: QuirkLog): void {
  const { bytesDone, expectedDataSN, command } = task;
  const { response, dataSN, flags, residualCount } = header;
  if (response !== 0 || dataSN <= expectedDataSN) return;
  const notSent = (flags & ScsiResponseBit.underflow) === 0 ? 0 : residualCount;
  if (bytesDone + notSent !== command?.transferLength) {
    const why = `a SCSI Response after ${dataSN} Data-In PDUs, of which ${expectedDataSN} came`;
    throw brokenRule('data-in-missing', why);
  }
  quirks.met('exp-data-sn', 'the target counts more Data-In PDUs than it sends; all bytes came');
}

/**
 * Bytes not transferred (underflow) as positive, bytes that did not fit (overflow) as negative
 * (RFC 7143 §11.4.1 (Flags (Byte 1))). With both bits the meaning is unknown: the bytes of a read
 * are counted, and of a write all counts as missing.
 */
export function residualOf(
  { flags, residualCount }: ResponseHeader,
  { direction, transferLength }: ScsiCommand,
  quirks: QuirkLog,
): number {
  const underflow = (flags & ScsiResponseBit.underflow) !== 0;
  const overflow = (flags & ScsiResponseBit.overflow) !== 0;
  if (underflow && overflow) {
    quirks.met('residual-both', 'the target reports residual overflow and underflow at once');
    return direction === 'write' ? transferLength : 0;
  }
  if (underflow) return residualCount;
  return overflow ? -residualCount : 0;
}
