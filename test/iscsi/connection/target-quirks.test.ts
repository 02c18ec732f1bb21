import { describe, expect, it } from 'vitest';
import { FROM, OP } from '../../helpers/peer-pdu.js';
import { patternOf, ScriptedPeer } from '../../helpers/scripted-peer.js';

const F = 0x80;
const UNDERFLOW = 2;
const OVERFLOW = 4;
const LUN0 = [0, 0] as const;
const LUN1 = [0x00010000, 0] as const;

/** The session lives, and the quirk has been reported, once. */
function expectQuirk(peer: ScriptedPeer, quirk: string, section: string): void {
  expect(peer.failure).toBeNull();
  expect(peer.session.state).toBe('loggedIn');
  expect(peer.take('targetQuirk')).toMatchObject([{ quirk, section }]);
}

/** A write of `length` bytes that nothing has been sent of, to a target with MaxBurstLength 8192. */
function writing(length: number) {
  const keys = { InitialR2T: 'Yes', ImmediateData: 'No', MaxBurstLength: '8192' };
  const peer = ScriptedPeer.loggedIn({}, { keys: { ...keys, FirstBurstLength: '8192' } });
  const command = peer.submit('write', length);
  const request = peer.sentOne(FROM.scsiCommand);
  const r2t = (at: number, asked: number, number: number) => ({
    opcode: OP.r2t,
    itt: request.itt,
    ttt: 0x77,
    lun: LUN1,
    word36: number,
    word40: at,
    word44: asked,
  });
  return { peer, command, request, r2t };
}

describe('RFC 7143 §11.8 (Ready To Transfer (R2T)): what the offset and the tag prove', () => {
  it('FreeBSD before 10.1 asks for more than MaxBurstLength, and gets it', () => {
    const { peer, request, r2t } = writing(20_000);
    peer.send(r2t(0, 20_000, 0));
    const sent = peer.sent();
    expect(Buffer.concat(sent.map((pdu) => pdu.data))).toEqual(patternOf(20_000));
    peer.respond(request);
    expectQuirk(peer, 'r2t-burst', '13.13');
  });

  it('gotgt sends R2Ts with LUN 0 for another LUN: the Data-Out has the LUN of the command', () => {
    const { peer, r2t } = writing(512);
    peer.send({ ...r2t(0, 512, 0), lun: LUN0 });
    const dataOut = peer.sentOne(FROM.dataOut);
    expect([dataOut.lun, dataOut.data]).toEqual([LUN1, patternOf(512)]);
    expectQuirk(peer, 'r2t-lun', '4.2.5.3');
  });

  it('R2Ts with any R2TSN are answered in the order of their offsets', () => {
    const { peer, r2t } = writing(10_000);
    peer.send(r2t(0, 5000, 3), r2t(5000, 5000, 3));
    expect(Buffer.concat(peer.sent().map((pdu) => pdu.data))).toEqual(patternOf(10_000));
    expectQuirk(peer, 'r2t-number', '11.8.2');
  });

  it('an R2T over MaxBurstLength and over the end of the transfer ends the connection', () => {
    const { peer, r2t } = writing(20_000);
    peer.send(r2t(0, 20_001, 0));
    expect([peer.sent(), peer.failure]).toMatchObject([[], { section: '11.8' }]);
  });

  it('a misnumbered R2T for bytes that were sent before ends the connection', () => {
    const { peer, r2t } = writing(10_000);
    peer.send(r2t(0, 5000, 0));
    peer.sent();
    peer.send(r2t(0, 5000, 7));
    expect([peer.sent(), peer.failure]).toMatchObject([[], { section: '11.8' }]);
  });
});

function reading(length: number) {
  const peer = ScriptedPeer.loggedIn();
  const command = peer.submit('read', length);
  const request = peer.sentOne(FROM.scsiCommand);
  const dataIn = (at: number, bytes: number, number: number, flags = 0) => ({
    opcode: OP.dataIn,
    itt: request.itt,
    flags,
    word36: number,
    word40: at,
    data: patternOf(length).subarray(at, at + bytes),
  });
  return { peer, command, request, dataIn };
}

describe('RFC 7143 §11.7 (SCSI Data-Out and SCSI Data-In): what the byte count proves', () => {
  it('the DataSN of a Data-In without data is of no concern', () => {
    const { peer, command, request, dataIn } = reading(1000);
    peer.send(dataIn(0, 500, 0), dataIn(500, 0, 0), dataIn(500, 500, 1, F));
    peer.respond(request, { word36: 2 });
    expect([command.outcome, command.dataIn.toBuffer()]).toEqual(['answered', patternOf(1000)]);
    expectQuirk(peer, 'data-in-number', '11.7.5');
  });

  it('a status ends its command although the Data-In is not final', () => {
    const { peer, command, dataIn } = reading(1000);
    peer.send(dataIn(0, 1000, 0, 1));
    expect([command.outcome, command.status]).toEqual(['answered', 0]);
    expectQuirk(peer, 'data-in-final', '11.7.3');
  });

  it('CHECK CONDITION in a Data-In is one without sense data', () => {
    const { peer, command, dataIn } = reading(1000);
    peer.send({ ...dataIn(0, 1000, 0, F | 1), byte3: 2 });
    expect(command).toMatchObject({ outcome: 'answered', status: 2, senseLength: 0 });
    expectQuirk(peer, 'data-in-status', '11.7.3');
  });

  it.each([
    ['all bytes', 1000, {}],
    ['all bytes but those that it reports as missing', 400, { flags: F | 2, word44: 600 }],
  ])(
    'a target that counts more Data-In than it sends is believed with %s',
    (_what, sent, fields) => {
      const { peer, command, request, dataIn } = reading(1000);
      peer.send(dataIn(0, sent, 0, F));
      peer.respond(request, { word36: 5, ...fields });
      expect(command.outcome).toBe('answered');
      expectQuirk(peer, 'exp-data-sn', '11.4.8');
    },
  );

  it.each([
    ['GOOD', {}],
    ['a residual that leaves bytes out', { flags: F | 2, word44: 599 }],
    ['an overflow', { flags: F | 4, word44: 600 }],
  ])('Data-In that is missing with %s ends the connection', (_what, fields) => {
    const { peer, command, request, dataIn } = reading(1000);
    peer.send(dataIn(0, 400, 0, F));
    peer.respond(request, { word36: 2, ...fields });
    expect(peer.failure).toMatchObject({ section: '7.9' });
    expect(command.outcome).toBe('lost');
  });
});

describe('RFC 7143 §11.4 (SCSI Response): what is not told', () => {
  it('§7.7 (Format Errors): CHECK CONDITION without sense data ends the command and not the connection', () => {
    const { peer, command, request } = reading(512);
    peer.respond(request, { byte3: 2 });
    expect(command).toMatchObject({ outcome: 'answered', status: 2, senseLength: 0 });
    expectQuirk(peer, 'check-condition-sense', '7.7');
  });

  it.each([
    ['a read counts the bytes that came', 'read', 0],
    ['a write counts as not done', 'write', 512],
  ] as const)(
    '§11.4.1 (Flags (Byte 1)): overflow and underflow at once say nothing: %s',
    (_what, direction, residual) => {
      const peer = ScriptedPeer.loggedIn();
      const command = peer.submit(direction, 512);
      const flags = F | UNDERFLOW | OVERFLOW;
      peer.respond(peer.sentOne(FROM.scsiCommand), { flags });
      expect(command).toMatchObject({ outcome: 'answered', status: 0, residual });
      expectQuirk(peer, 'residual-both', '11.4.1');
    },
  );
});

describe('RFC 7143 §11.19 (NOP-In), §11.9 (Asynchronous Message), §11.15 (Logout Response)', () => {
  it('an answer to our ping may have a Target Transfer Tag, and is not answered', () => {
    const peer = ScriptedPeer.loggedIn();
    const tag = peer.session.ping(Buffer.from('x'));
    const ping = peer.sentOne(FROM.nopOut);
    peer.send({ opcode: OP.nopIn, itt: ping.itt, ttt: 2, data: ping.data });
    expect(peer.effects.at(-1)).toMatchObject({ type: 'pingAnswered', initiatorTaskTag: tag });
    expect(peer.sent()).toEqual([]);
    expectQuirk(peer, 'nop-in-tags', '11.19');
  });

  it('AsyncEvent 5 without TaskReporting=FastAbort is reported, and ends no task', () => {
    const peer = ScriptedPeer.loggedIn();
    const command = peer.submit('none');
    peer.sent();
    peer.send({ opcode: OP.async, lun: LUN1, ttt: 0, word36: 5 << 24 });
    expect(peer.effects.some((effect) => effect.type === 'asyncReceived')).toBe(true);
    expect([command.outcome, peer.sent()]).toEqual(['pending', []]);
    expectQuirk(peer, 'async-termination', '11.9.1');
  });

  it('a Logout Response with another tag is the answer to the only request there is', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.session.requestLogout(peer.nowMs);
    peer.settle();
    const { itt } = peer.sentOne(FROM.logout);
    peer.send({ opcode: OP.logout, itt: itt + 1, ttt: 0 });
    expect([peer.session.state, peer.failure]).toEqual(['closed', null]);
    expect(peer.take('targetQuirk')).toMatchObject([{ quirk: 'logout-tag' }]);
  });

  it('a quirk that is met again is not told again, in the next session neither', () => {
    const peer = ScriptedPeer.loggedIn();
    const answer = { opcode: OP.nopIn, itt: 7, ttt: 2 };
    peer.send(answer, answer);
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    peer.login();
    peer.send(answer);
    expect(peer.take('targetQuirk')).toHaveLength(1);
  });
});
