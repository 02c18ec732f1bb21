/**
 * UNH-IOL's full feature phase tests for initiators (version 0.1 of the document): numbers of
 * commands, windows, responses, NOP-Out and fields of the SCSI command. docs/CONFORMANCE.md has all.
 */
import { describe, expect, it } from 'vitest';
import { FROM, NO_TAG, OP } from '../../helpers/peer-pdu.js';
import { ScriptedPeer } from '../../helpers/scripted-peer.js';

const F = 0x80;
const [READ, WRITE] = [0x40, 0x20];
const LUN1 = [0x00010000, 0] as const;
const QUIET = { timers: { noopIntervalMs: 0 } };

/** A session whose window the target has set with the answer to its first command. */
function windowed(commands: number) {
  const peer = ScriptedPeer.loggedIn(QUIET);
  peer.submit('none');
  const first = peer.sentOne(FROM.scsiCommand);
  peer.expCmdSN = first.cmdSN + 1;
  peer.maxCmdSN = peer.expCmdSN + commands - 1;
  // A window that closes needs the target to have had it as wide before: the login's is narrow.
  peer.send({ opcode: OP.scsiResponse, itt: first.itt, ttt: 0 });
  return { peer, first };
}

describe('UNH-IOL full feature phase: numbers', () => {
  it('#1.1 (Command Numbering): CmdSN grows by one for each request that is not immediate', () => {
    const peer = ScriptedPeer.started(QUIET);
    const logins = peer.login();
    for (const operation of [0x12, 0x00, 0x25, 0x28]) {
      peer.submit(operation === 0 ? 'none' : 'read', operation === 0 ? 0 : 512, { operation });
    }
    const numbers = peer.sent().map(({ cmdSN }) => cmdSN);
    const [start] = logins.map(({ cmdSN }) => cmdSN);
    expect(logins.every(({ immediate, cmdSN }) => immediate && cmdSN === start)).toBe(true);
    expect(numbers).toEqual([0, 1, 2, 3].map((more) => start! + more));
  });

  it('#2.1 (Immediate Delivery): a NOP-Out has the I bit and the CmdSN of the next command', () => {
    const peer = ScriptedPeer.loggedIn(QUIET);
    peer.session.ping(Buffer.alloc(0));
    peer.submit('none');
    const [ping, command] = peer.sent();
    expect(ping).toMatchObject({ opcode: FROM.nopOut, immediate: true });
    expect(command).toMatchObject({ opcode: FROM.scsiCommand, cmdSN: ping!.cmdSN });
  });

  it.each(['#2.2 (Immediate Delivery)', '#19.1 (Task Management Command CmdSN)'])(
    '%s: a task management request has the I bit and the CmdSN of the next command',
    () => {
      const timers = { noopIntervalMs: 0, taskTimeoutMs: 10_000 };
      const peer = ScriptedPeer.loggedIn({ timers });
      peer.submit('none');
      const command = peer.sentOne(FROM.scsiCommand);
      peer.at(11_000);
      peer.submit('none');
      const [abort, next] = peer.sent();
      expect(abort).toMatchObject({ opcode: FROM.taskManagement, immediate: true });
      expect([abort!.cmdSN, next!.cmdSN]).toEqual([command.cmdSN + 1, command.cmdSN + 1]);
    },
  );

  it('#3.1 (Closed Window): no command is sent before a NOP-In opens the window', () => {
    const peer = ScriptedPeer.loggedIn(QUIET, { maxCmdSN: 1, expCmdSN: 1 });
    peer.submit('none');
    const first = peer.sentOne(FROM.scsiCommand);
    peer.expCmdSN = 2;
    peer.send({ opcode: OP.scsiResponse, itt: first.itt, ttt: 0 });
    peer.submit('read', 512);
    peer.at(3000);
    expect(peer.sent()).toEqual([]);
    peer.maxCmdSN = peer.expCmdSN + 3;
    peer.send({ opcode: OP.nopIn });
    expect(peer.sentOne(FROM.scsiCommand).cmdSN).toBe(2);
  });

  it('#3.2 (Large Window): many commands are sent without an answer between them', () => {
    const { peer } = windowed(101);
    for (let count = 0; count < 32; count += 1) peer.submit('none');
    expect(peer.sent().map(({ cmdSN }) => cmdSN)).toEqual(
      Array.from({ length: 32 }, (_, index) => 2 + index),
    );
  });

  it('#3.3 (Single Command): a window of one lets one command out', () => {
    const peer = ScriptedPeer.loggedIn(QUIET, { maxCmdSN: 1, expCmdSN: 1 });
    peer.submit('none');
    const first = peer.sentOne(FROM.scsiCommand);
    [peer.expCmdSN, peer.maxCmdSN] = [2, 2];
    peer.send({ opcode: OP.scsiResponse, itt: first.itt, ttt: 0 });
    peer.submit('none');
    peer.submit('none');
    expect(peer.sentOne(FROM.scsiCommand).cmdSN).toBe(2);
    [peer.expCmdSN, peer.maxCmdSN] = [3, 3];
    peer.send({ opcode: OP.nopIn });
    expect(peer.sentOne(FROM.scsiCommand).cmdSN).toBe(3);
  });

  it('#5.1 (ExpStatSN): a StatSN that is 2^31 away makes the session recover', () => {
    const peer = ScriptedPeer.loggedIn(QUIET);
    const command = peer.submit('none');
    const { itt } = peer.sentOne(FROM.scsiCommand);
    const statSN = (peer.statSN + 2 ** 31) >>> 0;
    peer.send({ opcode: OP.scsiResponse, itt, ttt: 0, statSN });
    peer.at(peer.nowMs + 2000);
    expect([peer.session.state, command.outcome]).toEqual(['reconnecting', 'lost']);
  });

  it('#16.5 (ExpCmdSN): a SCSI Response closes the window until a NOP-In opens it', () => {
    const peer = ScriptedPeer.loggedIn(QUIET, { maxCmdSN: 1, expCmdSN: 1 });
    peer.submit('write', 512, { operation: 0x2a });
    const [write] = peer.sent();
    peer.expCmdSN = peer.maxCmdSN + 1;
    peer.send({ opcode: OP.scsiResponse, itt: write!.itt, ttt: 0 });
    peer.submit('none');
    peer.at(3000);
    expect(peer.sent()).toEqual([]);
    peer.maxCmdSN += 1;
    peer.send({ opcode: OP.nopIn });
    peer.sentOne(FROM.scsiCommand);
  });
});

describe('UNH-IOL full feature phase: NOP-Out', () => {
  it('#15.1 (Ping Response): tag and LUN come back, and no CmdSN is used', () => {
    const peer = ScriptedPeer.loggedIn(QUIET);
    peer.send({ opcode: OP.nopIn, ttt: 0xabba, lun: LUN1 });
    peer.submit('none');
    const [answer, command] = peer.sent();
    expect(answer).toMatchObject({
      ...{ opcode: FROM.nopOut, word20: 0xabba, lun: LUN1, itt: NO_TAG, immediate: true },
      ...{ data: Buffer.alloc(0), cmdSN: command!.cmdSN },
    });
  });

  it('#15.2 (Ping Request): silence leads to a ping with a tag of its own and LUN 0', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.at(peer.nowMs + 5000);
    const ping = peer.sentOne(FROM.nopOut);
    expect(ping).toMatchObject({ word20: NO_TAG, lun: [0, 0], immediate: true });
    expect(ping.itt).not.toBe(NO_TAG);
    peer.send({ opcode: OP.nopIn, itt: ping.itt });
    peer.submit('none');
    expect(peer.sentOne(FROM.scsiCommand).cmdSN).toBe(ping.cmdSN);
  });

  it('#15.3 (Confirm ExpStatSN): the next PDU confirms it, and a ping confirms it in silence', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.submit('none');
    peer.respond(peer.sentOne(FROM.scsiCommand));
    const { statSN } = peer;
    expect(peer.sent()).toEqual([]);
    peer.at(peer.nowMs + 5000);
    const ping = peer.sentOne(FROM.nopOut);
    expect(ping).toMatchObject({ word20: NO_TAG, lun: [0, 0], expStatSN: statSN });
    peer.submit('none');
    expect(peer.sentOne(FROM.scsiCommand)).toMatchObject({ cmdSN: ping.cmdSN, expStatSN: statSN });
  });
});

describe('UNH-IOL full feature phase: fields of the SCSI command', () => {
  it.each([
    ['#16.1.1 (SCSI Command PDU Fields): with ImmediateData=Yes', 'Yes', 512],
    ['#16.1.2 (SCSI Command PDU Fields): with ImmediateData=No', 'No', 0],
  ])('%s the numbers follow the login, and the data are as long as they say', (_t, key, bytes) => {
    const peer = ScriptedPeer.started(QUIET);
    const [login] = peer.login({ keys: { ImmediateData: key }, expCmdSN: 1 });
    const { statSN } = peer;
    peer.submit('write', 512, { operation: 0x2a });
    const command = peer.sentOne(FROM.scsiCommand);
    expect(command).toMatchObject({ cmdSN: 1, expStatSN: statSN, word20: 512 });
    expect(command.data).toHaveLength(bytes);
    expect(command.header.readUIntBE(5, 3)).toBe(bytes);
    expect([command.itt === login!.itt, command.itt === NO_TAG]).toEqual([false, false]);
    // A CDB of 16 bytes at most needs no additional header.
    expect([command.header[32], command.header[4]]).toEqual([0x2a, 0]);
  });

  it('#16.1.1 (SCSI Command PDU Fields): R and W bits say which way the data go', () => {
    const peer = ScriptedPeer.loggedIn(QUIET);
    peer.submit('read', 512);
    peer.submit('write', 512, { operation: 0x2a });
    peer.submit('none');
    const flags = peer.sent().map((pdu) => pdu.flags & (F | READ | WRITE));
    expect(flags).toEqual([F | READ, F | WRITE, F]);
  });

  it.each([
    ['fits', 4096, 4096],
    ['does not fit', 100_000, 8192],
  ])(
    '#16.6 (Expected Data Transfer Length): a transfer that %s is announced as a whole, and the rest waits for an R2T',
    (_what, length, immediate) => {
      const keys = { InitialR2T: 'Yes', ImmediateData: 'Yes' };
      const peer = ScriptedPeer.loggedIn(QUIET, { keys });
      peer.submit('write', length, { operation: 0x2a });
      const command = peer.sentOne(FROM.scsiCommand);
      expect(command).toMatchObject({ word20: length, flags: expect.any(Number) });
      expect([command.data.length, command.flags & F]).toEqual([immediate, F]);
    },
  );
});
