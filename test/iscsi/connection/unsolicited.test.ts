import { describe, expect, it } from 'vitest';
import { FROM, type InitiatorPdu, NO_TAG, OP } from '../../helpers/peer-pdu.js';
import { ScriptedPeer } from '../../helpers/scripted-peer.js';

const F = 0x80;
const LUN1 = [0x00010000, 0] as const;

describe('RFC 7143 §11.18 (NOP-Out)', () => {
  it('a NOP-In with a Target Transfer Tag is answered with that tag and LUN, immediate', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ opcode: OP.nopIn, ttt: 0x4711, lun: LUN1 });
    const answer = peer.sentOne(FROM.nopOut);
    expect(answer).toMatchObject({
      immediate: true,
      flags: F,
      itt: NO_TAG,
      word20: 0x4711,
      lun: LUN1,
      cmdSN: 1,
    });
    expect(answer.data).toHaveLength(0);
  });

  it('a NOP-In without a tag only updates the numbers', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ opcode: OP.nopIn });
    expect(peer.sent()).toEqual([]);
  });

  it('§11.18.3 (Ping Data): ping data come back, cut to the maximum of the target', () => {
    const peer = ScriptedPeer.loggedIn();
    const tag = peer.session.ping(Buffer.from('hello'));
    const ping = peer.sentOne(FROM.nopOut);
    expect(ping).toMatchObject({ itt: tag, word20: NO_TAG, immediate: true });
    peer.send({ opcode: OP.nopIn, itt: ping.itt, data: ping.data });
    expect(peer.take('pingAnswered')).toMatchObject([{ initiatorTaskTag: tag, data: ping.data }]);
    expect(() => peer.session.ping(Buffer.alloc(8193))).toThrow('8192 bytes');
  });

  it('a target that pings without end and does not read the responses loses its connection', () => {
    const peer = ScriptedPeer.loggedIn();
    const ping = { opcode: OP.nopIn, ttt: 1 };
    for (let count = 0; count < 5000; count += 1) peer.send(ping);
    expect(peer.failure).toMatchObject({ section: '11.18' });
  });

  it('pings are unlimited as long as their responses are sent', () => {
    const peer = ScriptedPeer.loggedIn();
    for (let count = 0; count < 3000; count += 1) {
      peer.send({ opcode: OP.nopIn, ttt: count });
      peer.sent();
    }
    expect(peer.session.state).toBe('loggedIn');
  });

  it('silence causes a NOP-Out, any PDU is a sign of life, and further silence ends the connection', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.at(5999);
    expect(peer.sent()).toEqual([]);
    peer.at(6000);
    const ping = peer.sentOne(FROM.nopOut);
    expect(ping.itt).not.toBe(NO_TAG);
    peer.nowMs = 10_000;
    peer.send({ opcode: OP.async, word36: 248 << 24 });
    peer.at(14_999);
    expect(peer.session.state).toBe('loggedIn');
    peer.at(15_000);
    expect(peer.sentOne(FROM.nopOut).itt).not.toBe(ping.itt);
    peer.at(19_900);
    peer.at(19_999);
    expect(peer.session.state).toBe('loggedIn');
    peer.at(20_000);
    expect(peer.failure).toMatchObject({ code: 'ERR_LINK', errno: 'ETIMEDOUT' });
  });
});

describe('RFC 7143 §11.9.1 (AsyncEvent)', () => {
  const event = (code: number, fields: { p1?: number; p2?: number; p3?: number } = {}) => ({
    opcode: OP.async,
    lun: LUN1,
    ttt: 0,
    word36: ((code << 24) | (fields.p1 ?? 0)) >>> 0,
    word40: (((fields.p2 ?? 0) << 16) | (fields.p3 ?? 0)) >>> 0,
  });

  it('event 0: the sense data are reported with their LUN', () => {
    const peer = ScriptedPeer.loggedIn();
    const sense = Buffer.from('700006000000000a00000000290000000000', 'hex');
    peer.send({ ...event(0), data: Buffer.concat([Buffer.of(0, 18), sense, Buffer.from('xy')]) });
    expect(peer.take('asyncReceived')).toMatchObject([
      { message: { event: 0, lunUpper: LUN1[0], lunLower: LUN1[1], sense } },
    ]);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('§11.9.4.1 (SenseLength): a length beyond the data is cut to what came', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ ...event(0), data: Buffer.from('ffff7000', 'hex') });
    expect(peer.take('asyncReceived')).toMatchObject([{ message: { sense: Buffer.of(0x70, 0) } }]);
  });

  it('event 1: a logout follows at once, no new command is sent, and then a new login', () => {
    const peer = ScriptedPeer.loggedIn();
    const running = peer.submit('none');
    const request = peer.sentOne(FROM.scsiCommand);
    peer.send(event(1, { p3: 10 }));
    const logout = peer.sentOne(FROM.logout);
    expect([logout.flags, logout.immediate]).toEqual([F | 0, true]);
    const waiting = peer.submit('none');
    expect([peer.sent(), waiting.outcome]).toEqual([[], 'pending']);
    peer.respond(request);
    expect(running.outcome).toBe('answered');
    peer.send({ opcode: OP.logout, itt: logout.itt, ttt: 0, word40: 7 << 16 });
    expect([peer.session.state, waiting.outcome]).toEqual(['reconnecting', 'lost']);
    // §11.15.3 (Time2Wait): to be ignored after a logout that succeeded at ErrorRecoveryLevel 0.
    expect(peer.session.deadlineAtMs).toBe(peer.nowMs);
    peer.at(peer.nowMs);
    peer.login();
    expect(peer.session.state).toBe('loggedIn');
  });

  it('event 1: a repeated request for logout is answered once', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send(event(1, { p3: 10 }), event(1, { p3: 10 }), event(4, { p3: 10 }));
    peer.sentOne(FROM.logout);
    peer.send(event(1, { p3: 10 }));
    expect(peer.sent()).toEqual([]);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('event 1: a target that does not answer the logout within Parameter3 loses its connection', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send(event(1, { p3: 2 }));
    peer.at(3000);
    expect(peer.failure).toMatchObject({ code: 'ERR_LINK', errno: 'ETIMEDOUT' });
  });

  it.each([
    ['2', { p1: 0, p2: 3, p3: 20 }],
    ['3', { p2: 3, p3: 20 }],
  ])('event %s: the connection ends and is not made again before Time2Wait', (code, fields) => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { DefaultTime2Wait: '60' } });
    const command = peer.submit('none');
    peer.send(event(Number(code), fields));
    expect([peer.session.state, command.outcome]).toEqual(['reconnecting', 'lost']);
    expect(peer.session.deadlineAtMs).toBe(peer.nowMs + 3000);
  });

  it('event 2: a message for another connection than ours is ignored', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send(event(2, { p1: 5 }));
    expect(peer.session.state).toBe('loggedIn');
  });

  it('event 4: a request to negotiate is answered by a new login', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send(event(4, { p3: 5 }));
    const { itt } = peer.sentOne(FROM.logout);
    peer.send({ opcode: OP.logout, itt, ttt: 0 });
    peer.at(peer.nowMs);
    peer.login();
    expect([peer.session.state, peer.session.logins]).toEqual(['loggedIn', 2]);
  });

  it.each([6, 100, 247, 248, 255])(
    'event %i: vendor and unassigned events are only reported',
    (code) => {
      const peer = ScriptedPeer.loggedIn();
      peer.send({ ...event(code), data: Buffer.from([0, 0, 1, 2, 3]) });
      expect(peer.take('asyncReceived')).toHaveLength(1);
      expect([peer.session.state, peer.sent()]).toEqual(['loggedIn', []]);
    },
  );

  it('an Asynchronous Message advances StatSN', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send(event(248));
    peer.submit('none');
    expect(peer.sentOne(FROM.scsiCommand).expStatSN).toBe(peer.statSN);
  });
});

describe('RFC 7143 §11.17 (Reject)', () => {
  const reject = (reason: number, bad: InitiatorPdu) => ({
    opcode: OP.reject,
    byte2: reason,
    ttt: 0,
    data: bad.header,
  });

  it.each([0x02, 0x04, 0x05, 0x07, 0x09, 0x0a, 0x0c])(
    'reason %i: the command has failed, and its CmdSN is used up (§7.3)',
    (reason) => {
      const peer = ScriptedPeer.loggedIn();
      const command = peer.submit('none');
      const bad = peer.sentOne(FROM.scsiCommand);
      peer.expCmdSN = bad.cmdSN;
      peer.send(reject(reason, bad));
      expect(command).toMatchObject({ outcome: 'failed', response: 0x100 | reason });
      const plug = peer.sentOne(FROM.nopOut);
      expect(plug).toMatchObject({ immediate: false, cmdSN: bad.cmdSN });
      expect(plug.itt).not.toBe(NO_TAG);
      peer.submit('none');
      expect(peer.sentOne(FROM.scsiCommand).cmdSN).toBe(bad.cmdSN + 1);
    },
  );

  it('no NOP-Out fills a CmdSN that the target has received', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.submit('none');
    const bad = peer.sentOne(FROM.scsiCommand);
    peer.expCmdSN = bad.cmdSN + 1;
    peer.send(reject(0x04, bad));
    expect(peer.sent()).toEqual([]);
  });

  it('§7.3 (Usage of Reject PDU in Recovery): a Reject of data ends no task; a response follows', () => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { InitialR2T: 'No', ImmediateData: 'No' } });
    const command = peer.submit('write', 512);
    const [request, dataOut] = peer.sent();
    peer.send(reject(0x02, dataOut!));
    expect([command.outcome, peer.sent()]).toEqual(['pending', []]);
    peer.respond(request!, { byte3: 2, data: Buffer.from('0002700b', 'hex') });
    expect(command).toMatchObject({ outcome: 'answered', status: 2 });
  });

  it('reason 0x0b (Negotiation Reset) ends the connection', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.submit('none');
    peer.send(reject(0x0b, peer.sentOne(FROM.scsiCommand)));
    expect(peer.failure).toMatchObject({ section: '11.17.1' });
  });

  it('§11.17.4 (Complete Header of Bad PDU): a short header ends the connection', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ opcode: OP.reject, byte2: 4, data: Buffer.alloc(47) });
    expect(peer.failure).toMatchObject({ section: '11.17.4' });
  });

  it('a Reject for an unknown tag is only reported', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ opcode: OP.reject, byte2: 9, data: Buffer.alloc(48, 0x01) });
    expect(peer.take('rejected')).toMatchObject([{ reason: 9, opcode: 1 }]);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('a Reject of a logout ends the connection without a wait', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.session.requestLogout(peer.nowMs);
    peer.settle();
    peer.send(reject(0x09, peer.sentOne(FROM.logout)));
    expect(peer.session.state).toBe('closed');
  });

  it('a Reject during the login ends the connection (§6.3 (Login Phase))', () => {
    const peer = ScriptedPeer.started();
    peer.send(reject(0x0b, peer.sentOne(FROM.login)));
    expect(peer.failure).toMatchObject({ section: '6.3', rule: 'login-opcode' });
  });
});

describe('RFC 7143 §11.15 (Logout Response)', () => {
  it('§11.15.1 (Response) 0: the session is closed, and nothing is sent after the request', () => {
    const peer = ScriptedPeer.loggedIn();
    const running = peer.submit('write', 512);
    peer.sent();
    peer.session.requestLogout(peer.nowMs);
    peer.settle();
    const logout = peer.sentOne(FROM.logout);
    expect(logout).toMatchObject({ immediate: true, flags: F, cmdSN: 2 });
    peer.send({ opcode: OP.nopIn, ttt: 5 });
    expect(peer.sent()).toEqual([]);
    peer.send({ opcode: OP.logout, itt: logout.itt, ttt: 0 });
    expect([peer.session.state, running.outcome]).toEqual(['closed', 'lost']);
    expect(peer.linkIsOpen).toBe(false);
  });

  it.each([1, 2, 3])('§11.15.1 (Response) %i: the session is closed with an error', (response) => {
    const peer = ScriptedPeer.loggedIn();
    peer.session.requestLogout(peer.nowMs);
    peer.settle();
    const { itt } = peer.sentOne(FROM.logout);
    peer.send({ opcode: OP.logout, itt, ttt: 0, byte2: response });
    expect(peer.failure).toMatchObject({ section: '11.15.1' });
    expect(peer.session.state).toBe('closed');
  });

  it('§11.15.3 (Time2Wait): a failed logout sets the time to wait', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ opcode: OP.async, ttt: 0, word36: 1 << 24, word40: 3 });
    const { itt } = peer.sentOne(FROM.logout);
    peer.send({ opcode: OP.logout, itt, ttt: 0, byte2: 3, word40: 4 << 16 });
    expect(peer.session.deadlineAtMs).toBe(peer.nowMs + 4000);
  });

  it('a Logout Response without a request is a protocol error', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ opcode: OP.logout, itt: 0, ttt: 0 });
    expect(peer.failure).toMatchObject({ section: '11.15' });
  });

  it('a PDU after the Logout Response is ignored', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.session.requestLogout(peer.nowMs);
    peer.settle();
    const { itt } = peer.sentOne(FROM.logout);
    const answer = { opcode: OP.logout, itt, ttt: 0, byte2: 3 };
    peer.send(answer, { opcode: OP.async, word36: 1 << 24 }, answer, { opcode: 0x3a });
    expect(peer.session.state).toBe('closed');
  });

  it('a logout that is not answered ends the session after its time', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.session.requestLogout(peer.nowMs);
    peer.settle();
    peer.at(peer.nowMs + 3000);
    expect(peer.session.state).toBe('closed');
  });
});

describe('RFC 7143 §11.2.1.2 (Opcode)', () => {
  it.each([0x00, 0x01, 0x10, 0x27, 0x30, 0x33, 0x3e])(
    'the opcode %i is not one of a target, and ends the connection whatever its StatSN',
    (opcode) => {
      for (const step of [0, 1, -1, 100_000]) {
        const peer = ScriptedPeer.loggedIn();
        peer.send({ opcode, statSN: peer.statSN + step });
        expect(peer.failure).toMatchObject({ section: '11.2.1.2' });
        expect(peer.session.state).toBe('reconnecting');
      }
    },
  );
});
