import { ScsiError } from '../base/errors.js';
import { completeTask, type TaskPlace } from './answer.js';
import { cmdSNOf, flagsOf, type Pdu, targetLunField, taskTag, word20 } from './codec.js';
import { beginDataOut } from './data-out.js';
import type { TargetDisk } from './disk.js';
import { rangeOf } from './scsi/scsi-block.js';
import {
  lunKey,
  passesAttention,
  planCommand,
  reportedLuns,
  type ScsiScene,
} from './scsi/scsi-unit.js';
import type { ConnectionPort, TargetTask } from './session.js';
import type { TargetOptions } from './settings.js';

const READ_FLAG = 0x40;
const WRITE_FLAG = 0x20;
const INQUIRY_DATA_CHANGED = { key: 0x06, asc: 0x3f, ascq: 0x03 };

type Place = TaskPlace & { readonly connection: ConnectionPort };

/** A SCSI Command PDU whose turn has come (RFC 7143 §11.3 (SCSI Command)). */
export function commandArrived(pdu: Pdu, place: Place): void {
  const { node, session } = place;
  const task = newTask(pdu, place.connection, session.target);
  if (session.tasks.has(task.initiatorTaskTag)) {
    node.stats.violation(`Initiator Task Tag ${task.initiatorTaskTag} is in use twice`);
    place.connection.drop();
    return;
  }
  session.tasks.set(task.initiatorTaskTag, task);
  task.fault = askFault(task, place);
  if (task.fault === 'drop-connection') {
    place.connection.drop();
    return;
  }
  if (task.fault === 'ignore') return;
  if (startsLate(task)) {
    // Its data is taken for what the disk is now; what it meets is queried when it starts.
    plan(task, place, 'withoutAttention');
    const before = diskOf(task, place);
    task.planLate = () => {
      plan(task, place, 'keepingData');
      // A command of the old disk's is not the new one's, whichever initiator got the report of
      // the change first.
      if (diskOf(task, place) !== before) task.failure ??= INQUIRY_DATA_CHANGED;
    };
  } else {
    plan(task, place);
  }
  const asksForData = !(typeof task.fault === 'object' && 'goodWithResidual' in task.fault);
  if (task.writes && task.expectedBytes > 0 && asksForData) beginDataOut(task, pdu, place);
  else completeTask(task, place);
}

function newTask(pdu: Pdu, connection: ConnectionPort, target: TargetOptions | null): TargetTask {
  const header = pdu.header;
  const flags = flagsOf(header);
  const field = Buffer.from(targetLunField(header));
  return {
    initiatorTaskTag: taskTag(header),
    cmdSN: cmdSNOf(header),
    lunField: field,
    lun: lunKey(field, target),
    cdb: Buffer.from(header.subarray(32, 48)),
    connection,
    reads: (flags & READ_FLAG) !== 0,
    writes: (flags & WRITE_FLAG) !== 0,
    expectedBytes: word20(header),
    fault: undefined,
    plan: null,
    failure: null,
    dataOut: Buffer.alloc(0),
    solicitedBytes: 0,
    unsolicitedOpen: false,
    unsolicitedBytes: 0,
    unsolicitedDataSN: 0,
    r2tSN: 0,
    r2ts: [],
    ended: false,
    cancelDelay: null,
    planLate: null,
  };
}

function askFault(task: TargetTask, place: Place): TargetTask['fault'] {
  const { node, session } = place;
  const opcode = task.cdb[0] ?? 0;
  const count = node.stats.countCommand(opcode);
  const range = rangeOf(task.cdb);
  return node.faults.onCommand?.({
    targetName: session.target?.name ?? '',
    initiatorName: session.initiatorName,
    isid: session.isid.toString('hex'),
    tsih: session.tsih,
    connectionId: place.connection.connectionId,
    portalGroupTag: session.portalGroupTag,
    lun: task.lun,
    opcode,
    cdb: task.cdb,
    lba: range?.lba ?? null,
    blockCount: range?.blockCount ?? null,
    expectedBytes: task.expectedBytes,
    count,
  });
}

function diskOf(task: TargetTask, place: Place): TargetDisk | null {
  return place.session.target?.luns.get(task.lun) ?? null;
}

function startsLate(task: TargetTask): boolean {
  const { fault } = task;
  return typeof fault === 'object' && 'delayMs' in fault && fault.startsLate === true;
}

/** Gives the task its plan, or the sense it will end with. */
function plan(task: TargetTask, place: Place, how?: 'withoutAttention' | 'keepingData'): void {
  const { node, session } = place;
  const target = session.target;
  const disk = diskOf(task, place);
  const scene: ScsiScene = {
    disk,
    luns: target === null ? [] : reportedLuns(target),
    place: {
      targetName: target?.name ?? '',
      portalGroupTag: session.portalGroupTag,
      ...(target?.portGroups === undefined ? {} : { portGroups: target.portGroups }),
      portGroupSettings: target?.portGroupSettings ?? {},
    },
    stats: node.stats,
    takeAttention: () => (disk === null ? null : session.takeAttention(task.lun, disk)),
  };
  const forcedSense = isForced(task.fault);
  const asksAttention = !forcedSense && how !== 'withoutAttention';
  if (asksAttention && !passesAttention(task.cdb[0] ?? 0)) {
    const attention = scene.takeAttention();
    if (attention !== null) {
      task.failure = { key: 0x06, ...attention };
      return;
    }
  }
  try {
    task.plan = planCommand(task.cdb, scene);
    const bytes = task.writes ? Math.min(task.plan.dataOutBytes, task.expectedBytes) : 0;
    if (!forcedSense && how !== 'keepingData') task.dataOut = Buffer.allocUnsafe(bytes);
  } catch (error) {
    if (!(error instanceof ScsiError)) throw error;
    task.failure = { key: error.senseKey, asc: error.asc, ascq: error.ascq };
  }
}

/** The reply is the fault's, and no data is requested. */
function isForced(fault: TargetTask['fault']): boolean {
  if (typeof fault !== 'object' || 'delayMs' in fault) return false;
  return !('undone' in fault) || fault.undone === 'residual';
}
