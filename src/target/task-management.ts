import { serialLess } from '../base/serial32.js';
import type { TaskPlace } from './answer.js';
import {
  cmdSNOf,
  flagsOf,
  type Pdu,
  targetLunField,
  taskManagementResponse,
  taskTag,
  word20,
} from './codec.js';
import type { TargetDisk } from './disk.js';
import type { NodeState } from './node-state.js';
import { lunKey } from './scsi/scsi-unit.js';
import type { ConnectionPort, TargetSession, UnitAttention } from './session.js';

/** Function codes of RFC 7143 §11.5.1 (Function). */
const FUNCTION = {
  abortTask: 1,
  abortTaskSet: 2,
  clearAca: 3,
  clearTaskSet: 4,
  logicalUnitReset: 5,
  targetWarmReset: 6,
  targetColdReset: 7,
  taskReassign: 8,
} as const;

/** Response codes of RFC 7143 §11.6.1 (Response). */
const RESPONSE = {
  complete: 0,
  noSuchTask: 1,
  noSuchLun: 2,
  reassignmentNotSupported: 4,
  notSupported: 5,
  rejected: 255,
} as const;

const COMMANDS_CLEARED: UnitAttention = { asc: 0x2f, ascq: 0x00 };
const RESET_OCCURRED: UnitAttention = { asc: 0x29, ascq: 0x03 };

type Place = TaskPlace & { readonly connection: ConnectionPort };

/** RFC 7143 §11.5 (Task Management Function Request). */
export function taskManagementArrived(pdu: Pdu, place: Place): void {
  const { node } = place;
  const code = flagsOf(pdu.header) & 0x7f;
  node.stats.taskManagement.push(code);
  const forced = node.faults.onTaskManagement?.(code);
  if (forced === 'ignore') return;
  const { taskManagementDelayMs = 0 } = node.faults;
  const delayMs =
    typeof taskManagementDelayMs === 'number' ? taskManagementDelayMs : taskManagementDelayMs(code);
  if (delayMs === 0) finish(code, pdu, { ...place, forced });
  else node.later(delayMs, () => finish(code, pdu, { ...place, forced }));
}

/** Does it and answers; after a delay the session may be gone. */
function finish(
  code: number,
  pdu: Pdu,
  place: Place & { readonly forced: number | undefined },
): void {
  const { node, connection, forced } = place;
  if (place.session.ended || !connection.isOpen) return;
  const response = forced ?? perform(code, pdu, place);
  connection.send(taskManagementResponse(taskTag(pdu.header), response), null, 'advances');
  if (code === FUNCTION.targetColdReset && response === RESPONSE.complete) {
    for (const session of sessionsOf(place)) {
      for (const each of [...session.connections.values()]) each.finish();
      node.endSession(session);
    }
  }
}

function perform(code: number, pdu: Pdu, place: Place): number {
  switch (code) {
    case FUNCTION.abortTask:
      return abortTask(pdu, place);
    case FUNCTION.abortTaskSet:
    case FUNCTION.clearTaskSet:
    case FUNCTION.logicalUnitReset:
      return onLogicalUnit(code, pdu, place);
    case FUNCTION.targetWarmReset:
    case FUNCTION.targetColdReset:
      resetTarget(pdu, place);
      return RESPONSE.complete;
    case FUNCTION.taskReassign:
      return RESPONSE.reassignmentNotSupported;
    case FUNCTION.clearAca:
      return RESPONSE.notSupported;
    default:
      return RESPONSE.rejected;
  }
}

/**
 * A task that is not there was either answered or never arrived; RefCmdSN tells the two apart, and
 * one that never arrived is counted as received (RFC 7143 §11.6.1 (Response)).
 */
function abortTask(pdu: Pdu, place: Place): number {
  const { session, node } = place;
  const task = session.tasks.get(word20(pdu.header));
  if (task !== undefined) {
    if (session.endTask(task)) node.stats.tasksKilled += 1;
    return RESPONSE.complete;
  }
  const refCmdSN = pdu.header.readUInt32BE(32);
  const window = session.window;
  if (window.accepts(refCmdSN) && serialLess(refCmdSN, cmdSNOf(pdu.header))) {
    window.hold(refCmdSN, null);
    return RESPONSE.complete;
  }
  return RESPONSE.noSuchTask;
}

function sessionsOf(place: Place): TargetSession[] {
  const name = place.session.target?.name;
  return [...place.node.sessions].filter((session) => session.target?.name === name);
}

function onLogicalUnit(code: number, pdu: Pdu, place: Place): number {
  const { session, node } = place;
  const lun = lunKey(targetLunField(pdu.header), session.target);
  const disk = session.target?.luns.get(lun);
  if (disk === undefined) return RESPONSE.noSuchLun;
  const isReset = code === FUNCTION.logicalUnitReset;
  // The unit is one, whatever the names of the targets that have it (SAM-5, logical unit reset).
  const everyone = code === FUNCTION.abortTaskSet ? [session] : [...node.sessions];
  for (const each of everyone) {
    for (const at of each === session ? [lun] : lunsOf(each, disk)) {
      const killed = killTasks(each, node, { lun: at, before: each === session ? pdu : null });
      if (each === session && !(isReset && node.faults.isResetToldToAsker === true)) continue;
      if (isReset) each.raise(at, RESET_OCCURRED, disk);
      else if (killed > 0) each.raise(at, COMMANDS_CLEARED, disk);
    }
  }
  return RESPONSE.complete;
}

function lunsOf({ target }: TargetSession, disk: TargetDisk): number[] {
  return [...(target?.luns ?? [])].filter(([, its]) => its === disk).map(([lun]) => lun);
}

function resetTarget(pdu: Pdu, place: Place): void {
  for (const each of sessionsOf(place)) {
    killTasks(each, place.node, { lun: null, before: each === place.session ? pdu : null });
    for (const [lun, disk] of each.target?.luns ?? []) each.raise(lun, RESET_OCCURRED, disk);
  }
}

/**
 * Of the session that asked only the tasks sent before the request: RFC 7143 §11.5.1 (Function)
 * has it act on commands with a lower CmdSN.
 */
function killTasks(
  session: TargetSession,
  node: NodeState,
  which: { readonly lun: number | null; readonly before: Pdu | null },
): number {
  const { lun, before } = which;
  const killed = session.endTasks(
    (task) =>
      (lun === null || task.lun === lun) &&
      (before === null || serialLess(task.cmdSN, cmdSNOf(before.header))),
  );
  node.stats.tasksKilled += killed;
  return killed;
}
