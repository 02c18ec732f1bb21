import {
  cmdSNOf,
  flagsOf,
  INITIATOR_OPCODE,
  isImmediate,
  logoutResponse,
  nopIn,
  opcodeOf,
  type Pdu,
  reject,
  TARGET_NO_TAG,
  targetLunField,
  taskTag,
  word20,
} from './codec.js';
import { commandArrived } from './command.js';
import { dataOutArrived } from './data-out.js';
import type { NodeState } from './node-state.js';
import type { ConnectionPort, TargetSession } from './session.js';
import type { Peer } from './settings.js';
import { taskManagementArrived } from './task-management.js';
import type { TargetTextExchange } from './text.js';

const REJECT = {
  dataDigest: 0x02,
  snack: 0x03,
  protocolError: 0x04,
  notSupported: 0x05,
} as const;

/** What the full-feature functions work with. */
type FullFeaturePlace = {
  readonly node: NodeState;
  readonly session: TargetSession;
  readonly connection: ConnectionPort;
  readonly text: TargetTextExchange;
  readonly peer: Peer;
};

/**
 * One PDU of the full feature phase. Numbered ones take their turn by CmdSN over all connections
 * of the session (RFC 7143 §4.2.2.1 (Command Numbering and Acknowledging)).
 */
export function pduArrived(pdu: Pdu, place: FullFeaturePlace): void {
  const { node, session, connection } = place;
  const opcode = opcodeOf(pdu.header);
  if (!pdu.dataDigestGood) {
    node.stats.dataDigestErrors += 1;
    sendReject(pdu, REJECT.dataDigest, connection);
    if (opcode === INITIATOR_OPCODE.dataOut) dataOutArrived(pdu, place);
    return;
  }
  if (opcode === INITIATOR_OPCODE.dataOut) {
    dataOutArrived(pdu, place);
    return;
  }
  if (opcode === INITIATOR_OPCODE.snack) {
    node.stats.snacks += 1;
    sendReject(pdu, REJECT.snack, connection);
    return;
  }
  if (isImmediate(pdu.header)) {
    deliver(pdu, place);
    return;
  }
  const cmdSN = cmdSNOf(pdu.header);
  if (!session.window.accepts(cmdSN) || session.window.isHeld(cmdSN)) {
    node.stats.ignoredByWindow += 1;
    return;
  }
  session.window.hold(cmdSN, { connection, pdu });
  deliverHeld(place);
}

/** Delivers what stands at ExpCmdSN, and what then follows it. */
function deliverHeld(place: FullFeaturePlace): void {
  const { session } = place;
  for (;;) {
    const held = session.window.take();
    if (held === undefined) return;
    // A command takes its place in the task set before the window may follow it.
    const isCommand = opcodeOf(held.pdu.header) === INITIATOR_OPCODE.scsiCommand;
    session.window.update(session.tasks.size + (isCommand ? 1 : 0));
    if (held.connection.isOpen) deliver(held.pdu, { ...place, connection: held.connection });
    if (session.ended) return;
  }
}

function deliver(pdu: Pdu, place: FullFeaturePlace): void {
  const { connection, session } = place;
  switch (opcodeOf(pdu.header)) {
    case INITIATOR_OPCODE.nopOut:
      nopArrived(pdu, place);
      return;
    case INITIATOR_OPCODE.scsiCommand:
      if (session.target === null) sendReject(pdu, REJECT.protocolError, connection);
      else commandArrived(pdu, place);
      return;
    case INITIATOR_OPCODE.taskManagement:
      if (session.target === null) sendReject(pdu, REJECT.protocolError, connection);
      else taskManagementArrived(pdu, place);
      if (!session.ended) deliverHeld(place);
      return;
    case INITIATOR_OPCODE.text:
      place.text.requestArrived(pdu, place);
      return;
    case INITIATOR_OPCODE.logout:
      logoutArrived(pdu, place);
      return;
    case INITIATOR_OPCODE.login:
      // RFC 7143 §6.3 (Login Phase): none after the full feature phase began.
      place.node.stats.violation('Login Request in the full feature phase');
      connection.drop();
      return;
    default:
      sendReject(pdu, REJECT.notSupported, connection);
  }
}

function sendReject(pdu: Pdu, reason: number, connection: ConnectionPort): void {
  connection.send(reject(reason), Buffer.concat([pdu.header, pdu.ahs]), 'advances');
}

/** RFC 7143 §11.18 (NOP-Out): a ping is echoed; an answer to ours is only counted. */
function nopArrived(pdu: Pdu, place: FullFeaturePlace): void {
  const { node, connection } = place;
  const initiatorTaskTag = taskTag(pdu.header);
  if (initiatorTaskTag === TARGET_NO_TAG) {
    if (!isImmediate(pdu.header)) node.stats.violation('NOP-Out without a task tag not immediate');
    if (word20(pdu.header) !== TARGET_NO_TAG) node.stats.nopAnswers += 1;
    return;
  }
  node.stats.nopOuts += 1;
  if (node.faults.ignoreNops) return;
  const header = nopIn({
    lun: targetLunField(pdu.header),
    initiatorTaskTag,
    targetTransferTag: TARGET_NO_TAG,
  });
  const most = connection.parameters.initiatorMaxRecvDataSegmentLength;
  connection.send(header, pdu.data.subarray(0, most), 'advances');
}

const LOGOUT = { closeSession: 0, closeConnection: 1, removeForRecovery: 2 } as const;
const LOGOUT_RESPONSE = { closed: 0, noSuchConnection: 1, recoveryNotSupported: 2 } as const;

/** RFC 7143 §11.14 (Logout Request). */
function logoutArrived(pdu: Pdu, place: FullFeaturePlace): void {
  const { node, session, connection } = place;
  const reason = flagsOf(pdu.header) & 0x7f;
  if (session.target !== null) node.stats.logoutReasons.push(reason);
  if (node.faults.logoutResponse === 'ignore') return;
  const connectionId = pdu.header.readUInt16BE(20);
  const leaving =
    reason === LOGOUT.closeSession
      ? [...session.connections.values()]
      : [...session.connections.values()].filter((one) => one.connectionId === connectionId);
  let response: number = LOGOUT_RESPONSE.closed;
  if (reason >= LOGOUT.removeForRecovery) response = LOGOUT_RESPONSE.recoveryNotSupported;
  else if (leaving.length === 0) response = LOGOUT_RESPONSE.noSuchConnection;
  response = node.faults.logoutResponse ?? response;
  connection.send(
    logoutResponse({
      initiatorTaskTag: taskTag(pdu.header),
      response,
      time2WaitSeconds: session.parameters.defaultTime2Wait,
      time2RetainSeconds: session.parameters.defaultTime2Retain,
    }),
    null,
    'advances',
  );
  if (response !== LOGOUT_RESPONSE.closed) return;
  if (session.target === null) node.stats.discoveryLogouts += 1;
  else node.stats.logouts += 1;
  for (const one of leaving) one.finish();
}
