import { completeTask, type TaskPlace } from './answer.js';
import {
  FINAL,
  flagsOf,
  type Pdu,
  readyToTransfer,
  TARGET_NO_TAG,
  TagCounter,
  taskTag,
  word20,
} from './codec.js';
import type { ConnectionPort, OutstandingR2T, SenseCode, TargetTask } from './session.js';

/** RFC 7143 §11.4.7.2 (Sense Data): how data that does not fit its rules ends a command. */
const UNEXPECTED_UNSOLICITED: SenseCode = { key: 0x0b, asc: 0x0c, ascq: 0x0c };
const INCORRECT_AMOUNT: SenseCode = { key: 0x0b, asc: 0x0c, ascq: 0x0d };
const PROTOCOL_SERVICE_CRC: SenseCode = { key: 0x0b, asc: 0x47, ascq: 0x05 };

const transferTags = new TagCounter();

/** Bytes the target wants of a write: what the CDB needs, as far as the initiator offers it. */
function wantedBytes(task: TargetTask): number {
  return task.failure === null ? task.dataOut.length : 0;
}

/** Takes immediate data and lets the rest come, unsolicited or by R2T. */
export function beginDataOut(task: TargetTask, pdu: Pdu, place: TaskPlace): void {
  const { session, node } = place;
  const parameters = session.parameters;
  const immediate = pdu.data.length;
  node.stats.immediateDataBytes += immediate;
  if (immediate > 0) {
    if (!parameters.immediateData || immediate > parameters.firstBurstLength) {
      fail(task, UNEXPECTED_UNSOLICITED, place, 'immediate data beyond what was negotiated');
    }
    if (immediate > task.expectedBytes) {
      fail(task, INCORRECT_AMOUNT, place, 'immediate data beyond the expected length');
    }
    pdu.data.copy(task.dataOut, 0);
  }
  task.unsolicitedBytes = immediate;
  const final = (flagsOf(pdu.header) & FINAL) !== 0;
  if (!final && parameters.initialR2T) {
    fail(task, UNEXPECTED_UNSOLICITED, place, 'unsolicited data announced with InitialR2T=Yes');
  }
  task.unsolicitedOpen = !final;
  if (final) goOn(task, place);
}

/** One SCSI Data-Out PDU of `task`; the caller has matched the Initiator Task Tag. */
function takeDataOut(
  task: TargetTask,
  pdu: Pdu,
  place: TaskPlace & { readonly connection: ConnectionPort },
): void {
  const tag = word20(pdu.header);
  if (tag === TARGET_NO_TAG) takeUnsolicited(task, pdu, place);
  else takeSolicited(task, pdu, place);
}

function takeUnsolicited(task: TargetTask, pdu: Pdu, place: TaskPlace): void {
  const { stats } = place.node;
  stats.unsolicitedDataOuts += 1;
  if (!task.unsolicitedOpen) {
    stats.violation(`unsolicited Data-Out for task ${task.initiatorTaskTag} that announced none`);
    return;
  }
  const offset = pdu.header.readUInt32BE(40);
  const expectedMax = Math.min(place.session.parameters.firstBurstLength, task.expectedBytes);
  if (pdu.header.readUInt32BE(36) !== task.unsolicitedDataSN) {
    fail(task, PROTOCOL_SERVICE_CRC, place, 'unsolicited Data-Out with a wrong DataSN');
  }
  if (offset !== task.unsolicitedBytes || offset + pdu.data.length > expectedMax) {
    fail(task, INCORRECT_AMOUNT, place, 'unsolicited Data-Out outside its sequence');
  }
  task.unsolicitedDataSN += 1;
  if (!pdu.dataDigestGood) fail(task, PROTOCOL_SERVICE_CRC, place, null);
  else if (task.failure === null) pdu.data.copy(task.dataOut, offset);
  task.unsolicitedBytes += pdu.data.length;
  if ((flagsOf(pdu.header) & FINAL) === 0) return;
  if (task.unsolicitedBytes !== expectedMax) {
    fail(task, INCORRECT_AMOUNT, place, 'unsolicited data does not fill FirstBurstLength');
  }
  task.unsolicitedOpen = false;
  goOn(task, place);
}

function takeSolicited(task: TargetTask, pdu: Pdu, place: TaskPlace): void {
  const tag = word20(pdu.header);
  const r2t = task.r2ts.find((one) => one.tag === tag);
  if (r2t === undefined) {
    place.node.stats.violation(`Data-Out with Target Transfer Tag ${tag} that is not outstanding`);
    return;
  }
  if (pdu.header.readUInt32BE(36) !== r2t.dataSN) {
    fail(task, PROTOCOL_SERVICE_CRC, place, 'solicited Data-Out with a wrong DataSN');
  }
  const offset = pdu.header.readUInt32BE(40);
  if (offset !== r2t.nextOffset || offset + pdu.data.length > r2t.end) {
    fail(task, INCORRECT_AMOUNT, place, 'solicited Data-Out outside its R2T');
  }
  r2t.dataSN += 1;
  if (!pdu.dataDigestGood) fail(task, PROTOCOL_SERVICE_CRC, place, null);
  else if (task.failure === null) pdu.data.copy(task.dataOut, offset);
  r2t.nextOffset += pdu.data.length;
  if ((flagsOf(pdu.header) & FINAL) === 0) {
    if (r2t.nextOffset === r2t.end) place.node.stats.violation('R2T filled without the F bit');
    return;
  }
  if (r2t.nextOffset !== r2t.end) {
    fail(task, INCORRECT_AMOUNT, place, 'the F bit before the R2T was filled');
  }
  task.r2ts = task.r2ts.filter((one) => one !== r2t);
  goOn(task, place);
}

/** The first failure counts; the answer waits until the announced data has come. */
function fail(
  task: TargetTask,
  sense: SenseCode,
  place: TaskPlace,
  violation: string | null,
): void {
  task.failure ??= sense;
  if (violation !== null) place.node.stats.violation(violation);
}

/** Asks for more, or completes the task when nothing is missing. */
function goOn(task: TargetTask, place: TaskPlace): void {
  if (task.unsolicitedOpen) return;
  task.solicitedBytes = Math.max(task.solicitedBytes, task.unsolicitedBytes);
  const wanted = wantedBytes(task);
  const { fault } = task;
  if (typeof fault === 'object' && 'undone' in fault && task.failure === null) {
    completeTask(task, place);
    return;
  }
  const parameters = place.session.parameters;
  while (task.r2ts.length < parameters.maxOutstandingR2T && task.solicitedBytes < wanted) {
    const burst = Math.min(parameters.maxBurstLength, place.node.faults.r2tBytesMax ?? wanted);
    const bytes = Math.min(burst, wanted - task.solicitedBytes);
    sendR2T(task, bytes, place);
  }
  if (task.r2ts.length === 0 && task.solicitedBytes >= wanted) completeTask(task, place);
}

function sendR2T(task: TargetTask, bytes: number, place: TaskPlace): void {
  const start = task.solicitedBytes;
  const r2t: OutstandingR2T = {
    tag: transferTags.next(),
    end: start + bytes,
    nextOffset: start,
    dataSN: 0,
  };
  task.r2ts.push(r2t);
  task.solicitedBytes = r2t.end;
  const header = readyToTransfer({
    lun: task.lunField,
    initiatorTaskTag: task.initiatorTaskTag,
    targetTransferTag: r2t.tag,
    r2tSN: task.r2tSN,
    bufferOffset: start,
    desiredBytes: bytes,
  });
  task.r2tSN += 1;
  place.node.stats.r2ts += 1;
  task.connection.send(header, null, 'shows');
}

/** Finds the task of a Data-Out; data for a task that has ended meanwhile is not an error. */
export function dataOutArrived(
  pdu: Pdu,
  place: TaskPlace & { readonly connection: ConnectionPort },
): void {
  const task = place.session.tasks.get(taskTag(pdu.header));
  if (task === undefined || task.ended || task.connection !== place.connection) {
    place.node.stats.strayDataOuts += 1;
    return;
  }
  takeDataOut(task, pdu, place);
}
