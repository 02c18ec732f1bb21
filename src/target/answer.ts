import { ScsiError } from '../base/errors.js';
import { dataIn, scsiResponse } from './codec.js';
import type { NodeState } from './node-state.js';
import { encodeSense, type SenseFacts, STATUS } from './scsi/sense.js';
import type { TargetSession, TargetTask } from './session.js';

type Reply = {
  readonly response: number;
  readonly status: number;
  readonly sense: Buffer | null;
  readonly data: Buffer | null;
};

const NO_DATA = Buffer.alloc(0);
const UNIT_ATTENTION = 0x06;

/** Everything the functions here need to know besides the task. */
export type TaskPlace = { readonly node: NodeState; readonly session: TargetSession };

/**
 * Runs a task whose data is complete, after the delay a fault may ask for. One that met a unit
 * attention reports it at once: what ends a slow task would end the only report.
 */
export function completeTask(task: TargetTask, place: TaskPlace): void {
  const fault = task.fault;
  if (typeof fault === 'object' && 'delayMs' in fault && task.failure?.key !== UNIT_ATTENTION) {
    const reply = fault.runsAtOnce === true ? replyOf(task) : null;
    task.cancelDelay = place.node.later(fault.delayMs, () => {
      task.cancelDelay = null;
      if (reply === null) task.planLate?.();
      endTask(task, place, reply);
    });
    return;
  }
  endTask(task, place, null);
}

/** Runs it, unless it has run and has its reply, and answers. */
function endTask(task: TargetTask, place: TaskPlace, early: Reply | null): void {
  if (task.ended) return;
  const reply = early ?? replyOf(task);
  place.session.endTask(task);
  if (task.fault === 'drop-response' && task.failure?.key !== UNIT_ATTENTION) return;
  if (task.fault === 'drop-connection-after') {
    task.connection.drop();
    return;
  }
  if (task.connection.isOpen) sendReply(task, reply, place.node);
}

function replyOf(task: TargetTask): Reply {
  const fault = task.fault;
  if (typeof fault === 'object') {
    if ('response' in fault) {
      return { response: fault.response, status: 0, sense: null, data: null };
    }
    if ('status' in fault) return { response: 0, status: fault.status, sense: null, data: null };
    if ('goodWithResidual' in fault) {
      return { response: 0, status: STATUS.good, sense: null, data: null };
    }
    if ('sense' in fault) return checkConditionReply(fault.sense);
    if ('undone' in fault && (fault.undone === 'residual' || isUnasked(task))) {
      return { response: 0, status: STATUS.good, sense: null, data: null };
    }
  }
  if (task.failure !== null) return checkConditionReply(task.failure);
  try {
    const data = task.plan?.run(task.dataOut) ?? null;
    return { response: 0, status: STATUS.good, sense: null, data };
  } catch (error) {
    if (!(error instanceof ScsiError)) throw error;
    return checkConditionReply({ key: error.senseKey, asc: error.asc, ascq: error.ascq });
  }
}

/** A write that ends with GOOD although data it needs was not asked for. */
function isUnasked(task: TargetTask): boolean {
  return task.writes && task.solicitedBytes < task.dataOut.length;
}

function checkConditionReply(facts: SenseFacts): Reply {
  return { response: 0, status: STATUS.checkCondition, sense: encodeSense(facts), data: null };
}

/** Sends Data-In and the response; RFC 7143 §11.4.5 (Residual Count) says what is left over. */
function sendReply(task: TargetTask, reply: Reply, node: NodeState): void {
  const moved = reply.data ?? NO_DATA;
  const offered = task.reads ? task.expectedBytes : 0;
  const data = moved.subarray(0, offered);
  const residual = residualOf(task, reply, moved.length);
  const options = node.faults.dataIn ?? {};
  const collapse = (options.collapseStatus ?? true) && data.length > 0;
  const dataPdus = sendDataIn(task, data, {
    node,
    status: collapse && reply.status === STATUS.good ? { status: reply.status, residual } : null,
  });
  if (collapse && reply.status === STATUS.good) return;
  const header = scsiResponse({
    initiatorTaskTag: task.initiatorTaskTag,
    response: reply.response,
    status: reply.status,
    expDataSN: reply.response === 0 ? Math.max(dataPdus, task.r2tSN) : 0,
    residual: reply.response === 0 ? residual : 0,
  });
  task.connection.send(header, senseSegment(reply.sense), 'advances');
}

/** SenseLength and sense (RFC 7143 §11.4.7 (Data Segment - Sense and Response Data Segment)). */
function senseSegment(sense: Buffer | null): Buffer | null {
  if (sense === null) return null;
  const segment = Buffer.alloc(2 + sense.length);
  segment.writeUInt16BE(sense.length, 0);
  sense.copy(segment, 2);
  return segment;
}

function residualOf(task: TargetTask, reply: Reply, dataInBytes: number): number {
  const { fault } = task;
  if (typeof fault === 'object' && 'goodWithResidual' in fault) return fault.goodWithResidual;
  if (reply.status !== STATUS.good) {
    // Nothing was moved to the initiator, so all it expected is left.
    return task.reads ? task.expectedBytes : 0;
  }
  if (
    typeof task.fault === 'object' &&
    'undone' in task.fault &&
    task.fault.undone === 'residual'
  ) {
    return task.expectedBytes;
  }
  const wanted = task.plan?.dataOutBytes ?? 0;
  if (wanted > 0) return (task.writes ? task.expectedBytes : 0) - wanted;
  if (dataInBytes > 0) return (task.reads ? task.expectedBytes : 0) - dataInBytes;
  return task.reads || task.writes ? task.expectedBytes : 0;
}

/** Cuts `data` by the initiator's segment maximum and MaxBurstLength; returns the PDUs sent. */
function sendDataIn(
  task: TargetTask,
  data: Buffer,
  how: {
    readonly node: NodeState;
    readonly status: { readonly status: number; readonly residual: number } | null;
  },
): number {
  const parameters = task.connection.parameters;
  const options = how.node.faults.dataIn ?? {};
  const segmentMax = Math.min(
    parameters.initiatorMaxRecvDataSegmentLength,
    options.segmentBytesMax ?? Number.POSITIVE_INFINITY,
  );
  const send = (offset: number, segment: Buffer, final: boolean, last: boolean): void => {
    const header = dataIn({
      initiatorTaskTag: task.initiatorTaskTag,
      dataSN,
      bufferOffset: offset,
      final,
      status: last ? how.status : null,
    });
    dataSN += 1;
    task.connection.send(header, segment, last && how.status ? 'advances' : 'none');
  };
  let dataSN = 0;
  let burst = 0;
  for (let offset = 0; offset < data.length; ) {
    const size = Math.min(segmentMax, data.length - offset, parameters.maxBurstLength - burst);
    burst += size;
    const last = offset + size === data.length;
    const final = last || burst === parameters.maxBurstLength;
    if (options.emptySegments) send(offset, NO_DATA, false, false);
    send(offset, data.subarray(offset, offset + size), final, last);
    if (final) burst = 0;
    offset += size;
  }
  return dataSN;
}
