import { describe, expect, it } from 'vitest';
import { FROM, NO_TAG, OP } from '../../helpers/peer-pdu.js';
import { ScriptedPeer } from '../../helpers/scripted-peer.js';

const GOOD = { opcode: OP.scsiResponse, ttt: 0 };

describe('RFC 7143 §4.2.2.1 (Command Numbering and Acknowledging)', () => {
  it('CmdSN grows by one for each command, and an immediate PDU carries the current value', () => {
    const peer = ScriptedPeer.loggedIn();
    for (let count = 0; count < 3; count += 1) peer.submit('none');
    peer.session.ping(Buffer.from('abc'));
    peer.submit('none');
    const pdus = peer.sent();
    expect(pdus.map((pdu) => [pdu.opcode, pdu.immediate, pdu.cmdSN])).toEqual([
      [FROM.scsiCommand, false, 1],
      [FROM.scsiCommand, false, 2],
      [FROM.scsiCommand, false, 3],
      [FROM.nopOut, true, 4],
      [FROM.scsiCommand, false, 4],
    ]);
  });

  it('login requests are immediate, so the first command has the CmdSN of the login', () => {
    const peer = ScriptedPeer.started();
    const logins = peer.login();
    expect(logins.map((login) => [login.immediate, login.cmdSN])).toEqual([
      [true, 1],
      [true, 1],
    ]);
    peer.submit('none');
    expect(peer.sentOne(FROM.scsiCommand).cmdSN).toBe(1);
  });

  it('commands are sent only inside MaxCmdSN and wait in order for more', () => {
    const peer = ScriptedPeer.loggedIn({}, { expCmdSN: 1, maxCmdSN: 2 });
    for (const operation of [1, 2, 3, 4]) peer.submit('none', 0, { operation });
    const first = peer.sent();
    expect(first.map((pdu) => pdu.cmdSN)).toEqual([1, 2]);
    peer.expCmdSN = 3;
    peer.maxCmdSN = 3;
    peer.send({ ...GOOD, itt: first[0]!.itt });
    const next = peer.sentOne(FROM.scsiCommand);
    expect([next.cmdSN, next.header[32]]).toEqual([3, 3]);
  });

  it('a window that is closed at login (MaxCmdSN = ExpCmdSN - 1) lets no command out', () => {
    const peer = ScriptedPeer.loggedIn({}, { expCmdSN: 1, maxCmdSN: 0 });
    peer.submit('none');
    expect(peer.sent()).toEqual([]);
    peer.maxCmdSN = 1;
    peer.send({ opcode: OP.nopIn });
    expect(peer.sentOne(FROM.scsiCommand).cmdSN).toBe(1);
  });

  it('a MaxCmdSN below ExpCmdSN - 1 is ignored with its ExpCmdSN', () => {
    const peer = ScriptedPeer.loggedIn({}, { expCmdSN: 1, maxCmdSN: 1 });
    peer.submit('none');
    peer.submit('none');
    peer.sent();
    const window = peer.session.connection!.window;
    peer.send({ opcode: OP.nopIn, expCmdSN: 100, maxCmdSN: 98 });
    expect([window.expCmdSN, window.maxCmdSN]).toEqual([1, 1]);
    expect(peer.sent()).toEqual([]);
    peer.send({ opcode: OP.nopIn, expCmdSN: 2, maxCmdSN: 1 });
    expect([window.expCmdSN, window.maxCmdSN]).toEqual([2, 1]);
  });

  it('a MaxCmdSN that would shrink the window is ignored', () => {
    const peer = ScriptedPeer.loggedIn({}, { expCmdSN: 1, maxCmdSN: 3 });
    peer.send({ opcode: OP.nopIn, expCmdSN: 1, maxCmdSN: 1 });
    for (let count = 0; count < 4; count += 1) peer.submit('none');
    expect(peer.sent().map((pdu) => pdu.cmdSN)).toEqual([1, 2, 3]);
  });

  it('numbers are compared as serial numbers: the window continues over 2^32', () => {
    const peer = ScriptedPeer.loggedIn();
    const { window } = peer.session.connection!;
    window.cmdSN = 0xffffffff;
    window.expCmdSN = 0xffffffff;
    window.maxCmdSN = 0xffffffff;
    peer.expCmdSN = 0xffffffff;
    peer.submit('none');
    peer.submit('none');
    const first = peer.sentOne(FROM.scsiCommand);
    expect(first.cmdSN).toBe(0xffffffff);
    peer.expCmdSN = 0;
    peer.maxCmdSN = 1;
    peer.send({ ...GOOD, itt: first.itt });
    expect(peer.sentOne(FROM.scsiCommand).cmdSN).toBe(0);
    peer.send({ opcode: OP.nopIn, expCmdSN: 0xfffffff0, maxCmdSN: 0xfffffff5 });
    expect(window.maxCmdSN).toBe(1);
  });

  it('an ExpCmdSN beyond the CmdSN sent acknowledges nothing', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ opcode: OP.nopIn, expCmdSN: 500, maxCmdSN: 600 });
    expect(peer.session.connection!.window.expCmdSN).toBe(1);
  });

  it('a window that stays closed while commands wait leads to a new connection', () => {
    const peer = ScriptedPeer.loggedIn(
      { timers: { noopIntervalMs: 0, taskTimeoutMs: 10_000 } },
      { expCmdSN: 1, maxCmdSN: 0 },
    );
    const command = peer.submit('none');
    for (let second = 1; second <= 13; second += 1) peer.at(1000 + second * 1000);
    expect(peer.failure).toMatchObject({ code: 'ERR_LINK', errno: 'ETIMEDOUT' });
    expect(command.outcome).toBe('lost');
  });
});

describe('RFC 7143 §4.2.2.2 (Response/Status Numbering and Acknowledging)', () => {
  it('each PDU acknowledges the StatSN received last, over 2^32 too', () => {
    const peer = ScriptedPeer.started();
    peer.statSN = 0xfffffffd;
    peer.login();
    peer.submit('none');
    peer.submit('none');
    const [first, second] = peer.sent();
    expect(first!.expStatSN).toBe(0xffffffff);
    peer.respond(first!);
    peer.respond(second!);
    peer.submit('none');
    expect(peer.sentOne(FROM.scsiCommand).expStatSN).toBe(1);
    expect(peer.done.map((command) => command.outcome)).toEqual(['answered', 'answered']);
  });

  it('NOP-In with ITT ffffffff and R2T do not advance StatSN', () => {
    const peer = ScriptedPeer.loggedIn({ offer: { immediateData: false, initialR2T: true } });
    const { send } = peer.session.connection!;
    const before = send.expStatSN;
    peer.submit('write', 512);
    const write = peer.sentOne(FROM.scsiCommand);
    peer.send({ opcode: OP.nopIn, statSN: before });
    peer.send({ ...r2t(write.itt, 0, 512), statSN: before });
    expect(send.expStatSN).toBe(before);
    expect(peer.sentOne(FROM.dataOut).expStatSN).toBe(before);
  });

  it('§7.9 (Sequence Errors): a gap in StatSN ends the connection after 2 s, and the session recovers', () => {
    const peer = ScriptedPeer.loggedIn();
    const command = peer.submit('none');
    const { itt } = peer.sentOne(FROM.scsiCommand);
    peer.send({ ...GOOD, itt, statSN: peer.statSN + 1 });
    peer.at(2999);
    expect([peer.session.state, command.outcome]).toEqual(['loggedIn', 'pending']);
    peer.at(3000);
    expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL', section: '7.9' });
    expect([peer.session.state, command.outcome]).toEqual(['reconnecting', 'lost']);
  });

  it('§7.9 (Sequence Errors): a gap counts whatever the PDU is that shows it', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ opcode: OP.async, word36: 250 << 24, statSN: peer.statSN + 1 });
    peer.at(3000);
    expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL', section: '7.9' });
  });

  it('§7.9 (Sequence Errors): what is no missing number does not prolong the wait for it', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.submit('none');
    const { itt } = peer.sentOne(FROM.scsiCommand);
    const number = peer.statSN;
    peer.send({ ...GOOD, itt, statSN: number + 1 });
    for (let step = 1; step <= 3; step += 1) {
      peer.nowMs = 1000 + step * 500;
      peer.send({ opcode: OP.nopIn }, { ...GOOD, itt, statSN: number + 1 });
      peer.send({ opcode: OP.async, word36: 250 << 24, statSN: number + 1 + step });
    }
    peer.at(3000);
    expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL', section: '7.9' });
  });

  it.each([4097, 0x7fffffff, 0x80000000, 0xb0000000])(
    '§7.9 (Sequence Errors): a StatSN that jumps by %i ends the connection at once',
    (jump) => {
      const peer = ScriptedPeer.loggedIn();
      peer.submit('none');
      const { itt } = peer.sentOne(FROM.scsiCommand);
      peer.send({ ...GOOD, itt, statSN: (peer.statSN + jump) >>> 0 });
      expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL', section: '7.9' });
    },
  );

  it('§7.9 (Sequence Errors): a target that sends much too early ends its connection at once', () => {
    const peer = ScriptedPeer.loggedIn();
    const data = Buffer.alloc(65536);
    for (let count = 1; count <= 17; count += 1) {
      peer.send({ opcode: OP.nopIn, itt: count, data, statSN: peer.statSN + count });
    }
    expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL', section: '7.9' });
    expect(peer.effects.filter((effect) => effect.type === 'pingAnswered')).toEqual([]);
  });

  it('istgt sends responses out of order: they take effect in the order of StatSN', () => {
    const peer = ScriptedPeer.loggedIn();
    const commands = [0, 1, 2].map(() => peer.submit('none'));
    const read = peer.submit('read', 512);
    const [first, second, third, reading] = peer.sent();
    const number = peer.statSN;
    const data = Buffer.alloc(512, 7);
    const withStatus = { opcode: OP.dataIn, itt: reading!.itt, flags: 0x81, data };
    peer.send(
      { ...withStatus, statSN: number + 3 },
      { ...GOOD, itt: third!.itt, statSN: number + 2 },
    );
    peer.send({ opcode: OP.nopIn, ttt: 9, statSN: number });
    expect([peer.done, peer.sentOne(FROM.nopOut).expStatSN]).toEqual([[], number]);
    peer.send({ ...GOOD, itt: first!.itt, statSN: number });
    expect(peer.done).toEqual([commands[0]]);
    peer.nowMs = 2500;
    peer.send({ ...GOOD, itt: second!.itt, statSN: number + 1 });
    expect(peer.done).toEqual([...commands, read]);
    expect(read.dataIn.toBuffer()).toEqual(data);
    peer.submit('none');
    expect(peer.sentOne(FROM.scsiCommand).expStatSN).toBe(number + 4);
    peer.at(5000);
    expect(peer.failure).toBeNull();
    expect(peer.take('targetQuirk')).toMatchObject([{ quirk: 'statsn-gap', section: '7.9' }]);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('istgt with several LUNs mixes the bytes of responses: after one out of order it gets one command at a time', () => {
    const peer = ScriptedPeer.loggedIn();
    const lunOf = (number: number) => ({ lun: [number << 16, 0] as const });
    for (const lun of [1, 2]) peer.submit('none', 0, lunOf(lun));
    const [first, second] = peer.sent();
    peer.send({ ...GOOD, itt: second!.itt, statSN: peer.statSN + 1 });
    for (const lun of [1, 2, 3]) peer.submit('none', 0, lunOf(lun));
    peer.submit('none', 0, { ...lunOf(1), isControl: true });
    expect(peer.sent()).toEqual([]);
    peer.send({ ...GOOD, itt: first!.itt });
    peer.statSN += 1;
    for (let command = 0; command < 3; command += 1) {
      peer.send({ ...GOOD, itt: peer.sentOne(FROM.scsiCommand).itt });
    }
    peer.loseLink();
    peer.at(10_000);
    peer.login();
    for (const lun of [1, 2]) peer.submit('none', 0, lunOf(lun));
    peer.send({ ...GOOD, itt: peer.sentOne(FROM.scsiCommand).itt });
    peer.sentOne(FROM.scsiCommand);
  });

  it('a power-on attention that comes early counts after the writes acknowledged before it', () => {
    const peer = ScriptedPeer.loggedIn();
    const write = peer.submit('write', 512);
    const other = peer.submit('none');
    const [writing, second] = peer.sent();
    const number = peer.statSN;
    const data = Buffer.from('0012700006000000000a00000000290000000000', 'hex');
    peer.send({ ...GOOD, itt: second!.itt, byte3: 2, data, statSN: number + 1 });
    peer.send({ ...GOOD, itt: writing!.itt, statSN: number });
    expect(peer.done).toEqual([write, other]);
    expect([write.status, other.status, other.senseLength]).toEqual([0, 2, 18]);
  });

  it('damaged data with an early status end their command when its turn has come', () => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { DataDigest: 'CRC32C' } });
    const read = peer.submit('read', 512);
    peer.submit('none');
    const [reading, other] = peer.sent();
    const number = peer.statSN;
    const withStatus = { opcode: OP.dataIn, itt: reading!.itt, flags: 0x81 };
    const bytes = peer.encode({ ...withStatus, data: Buffer.alloc(512), statSN: number + 1 });
    bytes[100] = 1;
    peer.feed(bytes);
    expect(read.outcome).toBe('pending');
    peer.send({ ...GOOD, itt: other!.itt, statSN: number });
    expect([read.outcome, peer.session.state]).toEqual(['lost', 'loggedIn']);
  });

  it('a Logout Response is the last PDU and waits for no other', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.session.requestLogout(peer.nowMs);
    peer.settle();
    const { itt } = peer.sentOne(FROM.logout);
    peer.send({ opcode: OP.logout, itt, ttt: 0, statSN: peer.statSN + 3 });
    expect(peer.session.state).toBe('closed');
    expect(peer.failure).toBeNull();
  });

  it('§7.9 (Sequence Errors): a PDU that was received before is discarded', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.submit('none');
    const { itt } = peer.sentOne(FROM.scsiCommand);
    const number = peer.statSN;
    peer.send({ ...GOOD, itt });
    peer.send({ ...GOOD, itt, statSN: number });
    peer.send({ opcode: OP.async, word36: 1 << 24, statSN: number });
    expect(peer.session.state).toBe('loggedIn');
    expect(peer.sent()).toEqual([]);
    expect(peer.done).toHaveLength(1);
  });

  it('gotgt repeats the ExpStatSN of the request as StatSN: the tag says what is answered', () => {
    const peer = ScriptedPeer.loggedIn();
    const commands = [peer.submit('none'), peer.submit('none'), peer.submit('read', 512)];
    const requests = peer.sent();
    const ping = peer.session.ping(Buffer.from('x'));
    const pinging = peer.sentOne(FROM.nopOut);
    const [first, second, read] = requests;
    peer.send({ ...GOOD, itt: first!.itt, statSN: first!.expStatSN });
    peer.send({ ...GOOD, itt: second!.itt, statSN: second!.expStatSN });
    const data = Buffer.alloc(512, 3);
    const answer = { opcode: OP.dataIn, itt: read!.itt, flags: 0x81, data };
    peer.send({ ...answer, statSN: read!.expStatSN });
    peer.send({ opcode: OP.nopIn, itt: pinging.itt, statSN: pinging.expStatSN });
    expect(peer.done).toEqual(commands);
    expect(commands.map(({ outcome }) => outcome)).toEqual(['answered', 'answered', 'answered']);
    expect(peer.effects.filter((effect) => effect.type === 'targetQuirk')).toMatchObject([
      { quirk: 'statsn-reused', section: '7.9' },
    ]);
    expect(peer.take('pingAnswered')).toMatchObject([{ initiatorTaskTag: ping }]);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('§11.13.5 (Status-Class and Status-Detail): the numbers of a refusal do not count', () => {
    const peer = ScriptedPeer.started();
    const request = peer.sentOne(FROM.login);
    peer.answerLogin(request, { word36: 0x03010000, statSN: 7, expCmdSN: 9000, maxCmdSN: 1 });
    expect(peer.failure).toMatchObject({ statusClass: 3, statusDetail: 1 });
    peer.at(peer.session.deadlineAtMs);
    peer.login();
    expect(peer.session.state).toBe('loggedIn');
  });
});

describe('RFC 7143 §4.2.5.3 (Tags and Integrity Checks)', () => {
  it('tags of running tasks are unique and never ffffffff', () => {
    const peer = ScriptedPeer.loggedIn();
    const seen = new Set<number>();
    for (let count = 0; count < 20; count += 1) peer.submit('none');
    for (const pdu of peer.sent()) seen.add(pdu.itt);
    expect(seen.size).toBe(20);
    expect(seen.has(NO_TAG)).toBe(false);
  });

  it('a tag is not used again at once, so a late response finds no task', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.submit('none');
    const old = peer.sentOne(FROM.scsiCommand);
    peer.respond(old);
    const command = peer.submit('read', 512);
    const young = peer.sentOne(FROM.scsiCommand);
    expect(young.itt).not.toBe(old.itt);
    peer.send({ opcode: OP.dataIn, itt: old.itt, data: Buffer.alloc(512, 1) });
    peer.send({ ...GOOD, itt: old.itt });
    expect(command.dataIn.byteLength).toBe(0);
    expect(peer.session.commandsInFlight).toBe(1);
  });

  it('an R2T for another LUN than its command is a protocol error', () => {
    const peer = ScriptedPeer.loggedIn({ offer: { immediateData: false, initialR2T: true } });
    peer.submit('write', 512, { lun: [0x00010000, 0] });
    const write = peer.sentOne(FROM.scsiCommand);
    peer.send({ ...r2t(write.itt, 0, 512), lun: [0x00020000, 0] });
    expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL', section: '11.8' });
  });

  it('a Data-In with a tag and another LUN than its command is a protocol error', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.submit('read', 512, { lun: [0x00010000, 0] });
    const { itt } = peer.sentOne(FROM.scsiCommand);
    const data = Buffer.alloc(512);
    peer.send({ opcode: OP.dataIn, itt, ttt: 5, lun: [0x00020000, 0], data });
    expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL', section: '11.7' });
  });
});

function r2t(itt: number, offset: number, length: number, number = 0) {
  const lun = [0x00010000, 0] as const;
  return { opcode: OP.r2t, itt, ttt: 9, lun, word36: number, word40: offset, word44: length };
}
