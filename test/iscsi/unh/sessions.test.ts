/**
 * UNH-IOL's full feature phase tests for initiators (version 0.1 of the document): logout, text, task
 * management, Asynchronous Message.
 */
import { describe, expect, it } from 'vitest';
import { FROM, type InitiatorPdu, NO_TAG, OP, textOf } from '../../helpers/peer-pdu.js';
import { PORTALS, ScriptedPeer } from '../../helpers/scripted-peer.js';

const F = 0x80;
const LUN1 = [0x00010000, 0] as const;
const [ABORT_TASK, LU_RESET] = [1, 5];
const COMMANDS: readonly number[] = [FROM.scsiCommand, FROM.dataOut, FROM.text];
const QUIET = { timers: { noopIntervalMs: 0 } };

const event = (code: number, fields: { p1?: number; p2?: number; p3?: number } = {}) => ({
  ...{ opcode: OP.async, ttt: 0, word36: ((code << 24) | (fields.p1 ?? 0)) >>> 0 },
  word40: (((fields.p2 ?? 0) << 16) | (fields.p3 ?? 0)) >>> 0,
});

const newCommands = (pdus: readonly InitiatorPdu[]) =>
  pdus.filter(({ opcode }) => COMMANDS.includes(opcode));

/** A session that was requested to log out in the middle of a write, and its Logout Request. */
function askedToLogOut(seconds: number) {
  const peer = ScriptedPeer.loggedIn(QUIET, { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } });
  const command = peer.submit('write', 512, { operation: 0x2a });
  const write = peer.sentOne(FROM.scsiCommand);
  peer.send({ opcode: OP.r2t, itt: write.itt, lun: LUN1, ttt: 7, word44: 512 });
  peer.sentOne(FROM.dataOut);
  peer.send(event(1, { p3: seconds }));
  return { peer, command, write, logout: peer.sentOne(FROM.logout) };
}

describe('UNH-IOL full feature phase: logout', () => {
  it('#14.1 (Logout Request): the request follows at once, and no command after it', () => {
    const { peer, write, logout } = askedToLogOut(5);
    expect(logout.flags & F).toBe(F);
    expect([0, 1]).toContain(logout.flags & 0x7f);
    // The CID of the only connection of a session: that of its login.
    expect(logout.word20 >>> 16).toBe(0);
    expect(logout.expStatSN).toBe(peer.statSN);
    expect([write.itt, NO_TAG]).not.toContain(logout.itt);
    peer.submit('none');
    expect(newCommands(peer.sent())).toEqual([]);
  });

  it('#17.1 (Logout): the connection ends after the response, and the same portal is logged in to', () => {
    const { peer, logout } = askedToLogOut(5);
    peer.submit('none');
    expect(newCommands(peer.sent())).toEqual([]);
    peer.effects.length = 0;
    peer.send({ opcode: OP.logout, itt: logout.itt, ttt: 0 });
    expect(peer.linkIsOpen).toBe(false);
    peer.at(peer.nowMs);
    expect(peer.take('openLink')).toMatchObject([{ portal: PORTALS[0] }]);
    peer.login();
    expect(peer.session.state).toBe('loggedIn');
  });
});

/** A discovery session with a request for all targets on its way. */
function discovery() {
  const peer = ScriptedPeer.loggedIn({ ...QUIET, type: 'discovery' }, { tag: null });
  const text = (fields: { tag?: number; ttt?: number; lun?: { upper: number; lower: number } }) => {
    const initiatorTaskTag = fields.tag ?? peer.session.nextControlTag();
    peer.session.sendText({
      ...{ final: true, continued: false, lun: fields.lun ?? { upper: 0, lower: 0 } },
      ...{ initiatorTaskTag, targetTransferTag: fields.ttt ?? NO_TAG },
      data: textOf(fields.tag === undefined ? ['SendTargets=All'] : []),
    });
    return peer.sentOne(FROM.text);
  };
  const { expCmdSN } = peer;
  return { peer, expCmdSN, text, request: text({}) };
}

const TARGET = textOf(['TargetName=iqn.2001-04.com.example:a', 'TargetAddress=192.0.2.1:3260,1']);

describe('UNH-IOL full feature phase: text', () => {
  it('#18.1 (Text Fields): numbers follow the login, the tag is the reserved one, F ends it', () => {
    const { request, expCmdSN } = discovery();
    expect(request).toMatchObject({ cmdSN: expCmdSN, word20: NO_TAG, flags: F });
    expect(request.itt).not.toBe(NO_TAG);
  });

  it('#18.3.1 (Target Transfer Tag): the tag of a final response is ignored, a logout follows', () => {
    const { peer, request } = discovery();
    peer.send({ opcode: OP.text, itt: request.itt, flags: F, ttt: 0x1234, data: TARGET });
    expect(peer.take('textReceived')).toMatchObject([{ response: { final: true } }]);
    peer.session.requestLogout(peer.nowMs);
    peer.settle();
    const logout = peer.sentOne(FROM.logout);
    expect([logout.flags, logout.itt === request.itt]).toEqual([F, false]);
  });

  it('#18.5 (Negotiation Reset): after a Reject the connection stays, and a new request is sent', () => {
    const { peer, request, text } = discovery();
    peer.send({ opcode: OP.reject, byte2: 9, ttt: 0, data: request.header });
    expect(peer.session.state).toBe('loggedIn');
    const again = text({});
    expect([again.itt === request.itt, again.word20]).toEqual([false, NO_TAG]);
  });
});

/** A command that takes too long, and the abort of it. */
function late() {
  const timers = { noopIntervalMs: 0, taskTimeoutMs: 10_000, abortTimeoutMs: 5000 };
  const peer = ScriptedPeer.loggedIn({ timers });
  const command = peer.submit('read', 512, { lun: [0x00020000, 0] });
  const request = peer.sentOne(FROM.scsiCommand);
  peer.at(11_000);
  return { peer, command, request, abort: peer.sentOne(FROM.taskManagement) };
}

/** The reset of all tasks of the unit, which this initiator sends and not ABORT TASK SET. */
function reset() {
  const found = late();
  found.peer.send({ opcode: OP.taskManagement, itt: found.abort.itt, ttt: 0, byte2: 5 });
  const sent = found.peer.sentOne(FROM.taskManagement);
  expect(sent.flags).toBe(F | LU_RESET);
  return { ...found, sent };
}

const PING = { opcode: OP.nopIn, ttt: 0x77, lun: [0x00020000, 0] as const };

describe('UNH-IOL full feature phase: task management', () => {
  it('#19.2 (LUN): the request has the LUN of the task', () => {
    const { request, abort } = late();
    expect(abort.lun).toEqual(request.lun);
  });

  it('#19.3 (RefCmdSN): an ABORT TASK has tag and CmdSN of the task', () => {
    const { request, abort } = late();
    expect([abort.flags, abort.word20, abort.word32]).toEqual([
      ...[F | ABORT_TASK, request.itt, request.cmdSN],
    ]);
  });

  it('#19.4.1 (Abort Task Set): a ping is answered while all tasks of a unit are aborted', () => {
    const { peer } = reset();
    peer.send(PING);
    expect(peer.sentOne(FROM.nopOut)).toMatchObject({ word20: 0x77, lun: PING.lun });
  });

  it('#19.4.2 (Abort Task Set): a ping is answered and data are taken in meanwhile', () => {
    const { peer, request } = reset();
    const dataIn = { opcode: OP.dataIn, itt: request.itt, lun: request.lun };
    peer.send(PING, { ...dataIn, flags: F | 0x40, data: Buffer.alloc(512) });
    expect(peer.sentOne(FROM.nopOut).word20).toBe(0x77);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('#19.4.3 (Abort Task Set): the answer of a task and then that of the request are taken', () => {
    const { peer, request, command, sent } = reset();
    peer.respond(request, { byte3: 2, data: Buffer.from('00027006', 'hex') });
    peer.send({ opcode: OP.taskManagement, itt: sent.itt, ttt: 0 });
    expect([command.outcome, peer.session.state, peer.sent()]).toEqual([
      ...['answered', 'loggedIn', []],
    ]);
  });
});

describe('UNH-IOL full feature phase: Asynchronous Message', () => {
  it('#20.1 (Logout Request): a logout follows within a second, and no command after it', () => {
    const { peer, logout } = askedToLogOut(1);
    expect([0, 1]).toContain(logout.flags & 0x7f);
    peer.submit('none');
    expect(newCommands(peer.sent())).toEqual([]);
  });

  it('#20.2 (Drop Connection): the connection ends, and a new one is opened within a second', () => {
    const peer = ScriptedPeer.loggedIn(QUIET);
    peer.submit('none');
    peer.sent();
    peer.effects.length = 0;
    peer.send(event(2, { p3: 1 }));
    expect([peer.linkIsOpen, peer.session.state]).toEqual([false, 'reconnecting']);
    peer.at(peer.nowMs + 999);
    expect(peer.take('openLink')).toHaveLength(1);
  });

  it('#20.3 (Drop All Connections): after Time2Wait, and within Time2Retain, the login follows', () => {
    const peer = ScriptedPeer.loggedIn(QUIET);
    peer.send(event(3, { p2: 1, p3: 2 }));
    expect(peer.linkIsOpen).toBe(false);
    peer.effects.length = 0;
    peer.at(peer.nowMs + 999);
    expect(peer.take('openLink')).toEqual([]);
    peer.at(peer.nowMs + 1);
    expect(peer.take('openLink')).toHaveLength(1);
  });

  it('#20.4 (Request Negotiation): a logout, which RFC 7143 allows, and a new negotiation follow', () => {
    const peer = ScriptedPeer.loggedIn(QUIET);
    peer.send(event(4, { p3: 3 }));
    const { itt } = peer.sentOne(FROM.logout);
    peer.send({ opcode: OP.logout, itt, ttt: 0 });
    peer.at(peer.nowMs);
    expect(peer.login()).toHaveLength(2);
    expect(peer.session.state).toBe('loggedIn');
  });
});
