import { describe, expect, it } from 'vitest';
import { chapResponse } from '../../../src/iscsi/login/chap.js';
import { FROM, linesOf, OP, textOf } from '../../helpers/peer-pdu.js';
import { type Config, ISID, PORTALS, ScriptedPeer } from '../../helpers/scripted-peer.js';

describe('RFC 7143 §6.3.5 (Session Reinstatement, Closure, and Timeout)', () => {
  it('the login after an outage has the same ISID and TSIH 0', () => {
    const peer = ScriptedPeer.started();
    const [first] = peer.login();
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    const [again] = peer.login();
    for (const login of [first!, again!]) {
      expect(login.header.subarray(8, 14)).toEqual(ISID);
      expect(login.header.readUInt16BE(14)).toBe(0);
      expect(login.header.readUInt16BE(20)).toBe(0);
    }
    expect(peer.session.logins).toBe(2);
  });

  it('all tasks of the old connection are over before the new one begins', () => {
    const peer = ScriptedPeer.loggedIn();
    const commands = [peer.submit('none'), peer.submit('write', 512), peer.submit('read', 512)];
    peer.loseLink();
    expect(commands.map((command) => command.outcome)).toEqual(['lost', 'lost', 'lost']);
    expect(peer.session.connection).toBeNull();
    expect(peer.take('openLink')).toHaveLength(1);
  });

  it('the numbers begin anew: CmdSN with the login, StatSN with its response', () => {
    const peer = ScriptedPeer.loggedIn();
    for (let count = 0; count < 5; count += 1) peer.submit('none');
    peer.sent();
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    peer.statSN = 0x900;
    peer.login();
    peer.submit('none');
    expect(peer.sentOne(FROM.scsiCommand)).toMatchObject({ cmdSN: 1, expStatSN: 0x902 });
  });
});

describe('RFC 7143 §4.2.5.1 (Command Connection Allegiance)', () => {
  it('data that waited to be sent on a connection are never sent on the next', () => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { InitialR2T: 'No' } });
    peer.submit('write', 60_000);
    peer.session.ping(Buffer.from('old'));
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    expect(peer.sent().map((pdu) => pdu.opcode)).toEqual([FROM.login]);
  });

  it('a tag of the old connection is unknown on the next', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.submit('read', 512);
    const old = peer.sentOne(FROM.scsiCommand);
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    peer.login();
    peer.send({ opcode: OP.dataIn, itt: old.itt, flags: 0, data: Buffer.alloc(512, 1) });
    peer.respond(old);
    expect([peer.done.length, peer.session.state]).toEqual([1, 'loggedIn']);
  });
});

describe('RFC 7143 §7.5.1 (Timeouts on Transport Exception Events)', () => {
  it('the session does not come back before DefaultTime2Wait', () => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { DefaultTime2Wait: '3' } });
    peer.loseLink();
    peer.at(3999);
    expect(peer.session.attempts).toBe(1);
    peer.at(4000);
    expect(peer.session.attempts).toBe(2);
  });

  it('a target that drops every login gets one attempt an interval, from the second on', () => {
    const peer = ScriptedPeer.loggedIn();
    const attemptsAtMs: number[] = [];
    for (let round = 0; round < 4; round += 1) {
      peer.loseLink();
      peer.at(peer.session.deadlineAtMs);
      attemptsAtMs.push(peer.nowMs);
      peer.login();
    }
    expect(attemptsAtMs).toEqual([1000, 6000, 11_000, 16_000]);
  });
});

/** Follows one redirection; `fields` are status and data of the answer. */
function redirect(peer: ScriptedPeer, detail: number, ...addresses: string[]) {
  const request = peer.sentOne(FROM.login);
  const lines = addresses.map((address) => `TargetAddress=${address}`);
  peer.answerLogin(request, { flags: 0, word36: (0x0100 | detail) << 16, lines });
}

const opened = (peer: ScriptedPeer) =>
  peer.effects.flatMap((effect) => (effect.type === 'openLink' ? [effect.portal.host] : []));

describe('RFC 7143 §11.13.5 (Status-Class and Status-Detail): redirection', () => {
  it('status 0101: the session goes to the address temporarily and comes back to its own portal', () => {
    const peer = ScriptedPeer.started();
    redirect(peer, 1, '192.0.2.77:860');
    peer.login();
    expect(peer.session.portal).toEqual({ host: '192.0.2.77', port: 860 });
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    expect(opened(peer)).toEqual(['192.0.2.1', '192.0.2.77', '192.0.2.1']);
  });

  it('status 0102: the session stays at the address permanently and keeps the old one as another', () => {
    const peer = ScriptedPeer.started();
    redirect(peer, 2, '192.0.2.77', '192.0.2.78');
    peer.login();
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    expect(opened(peer)).toEqual(['192.0.2.1', '192.0.2.77', '192.0.2.77']);
    const hosts = peer.session.portals.all.map((portal) => portal.host);
    expect(hosts).toEqual(['192.0.2.1', '192.0.2.77', '192.0.2.78']);
  });

  it('each redirection is reported', () => {
    const peer = ScriptedPeer.started();
    redirect(peer, 1, '192.0.2.77');
    redirect(peer, 1, '192.0.2.78');
    peer.login();
    expect(peer.take('redirected')).toMatchObject([
      { from: { host: '192.0.2.1' }, to: { host: '192.0.2.77', port: 3260 }, permanent: false },
      { from: { host: '192.0.2.77' }, to: { host: '192.0.2.78' } },
    ]);
  });

  it('redirections without end stop after eight, until the next round', () => {
    const peer = ScriptedPeer.started();
    for (let step = 0; step < 9; step += 1) redirect(peer, 1, `192.0.2.${step + 10}`);
    expect(peer.failure).toMatchObject({ section: '11.13.5' });
    expect(peer.linkIsOpen).toBe(false);
    expect(peer.session.deadlineAtMs).toBe(6000);
    peer.at(6000);
    peer.login();
    expect(peer.session.portal?.host).toBe('192.0.2.1');
  });

  it('a redirection before the configured authentication is never permanent', () => {
    const chap = { user: 'u', secret: Buffer.alloc(16, 1), algorithms: ['MD5' as const] };
    const peer = ScriptedPeer.started({ login: { chap } });
    redirect(peer, 2, '192.0.2.66');
    expect(peer.take('redirected')).toMatchObject([{ permanent: false }]);
    expect(peer.session.portals.all).toHaveLength(1);
  });

  it('§13.8 (TargetAddress): an address has no portal group tag, and one that is given is ignored', () => {
    const peer = ScriptedPeer.started();
    redirect(peer, 1, '[2001:db8::7]:3261,9');
    peer.login({ tag: '2' });
    expect(peer.session.portal).toEqual({ host: '2001:db8::7', port: 3261 });
  });

  it.each([
    ['no address', []],
    ['an address that is none', ['not an address']],
  ])('a redirection with %s fails the attempt', (_what, addresses) => {
    const peer = ScriptedPeer.started({ firstLogin: 'once' });
    redirect(peer, 1, ...addresses);
    expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL' });
    expect(peer.session.state).toBe('closed');
  });
});

describe('RFC 7143 §11.13.5 (Status-Class and Status-Detail): refusals', () => {
  it('the portals are tried in turn, and again after the interval', () => {
    const peer = ScriptedPeer.started({ portals: PORTALS });
    peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0301 << 16 });
    peer.at(peer.session.deadlineAtMs);
    peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0302 << 16 });
    expect(peer.session.deadlineAtMs).toBe(6000);
    peer.at(6000);
    expect(opened(peer)).toEqual(['192.0.2.1', '192.0.2.2', '192.0.2.1']);
  });

  it('a first login that may be tried once closes the session with the reason', () => {
    const peer = ScriptedPeer.started({ firstLogin: 'once' });
    peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0203 << 16 });
    expect(peer.session.state).toBe('closed');
    expect(peer.failure).toMatchObject({ statusClass: 2, statusDetail: 3 });
  });

  it('a session that was logged in before retries whatever the target answers', () => {
    const peer = ScriptedPeer.loggedIn({ firstLogin: 'once' });
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0203 << 16 });
    expect(peer.session.state).toBe('reconnecting');
    peer.at(peer.session.deadlineAtMs);
    peer.login();
    expect(peer.session.state).toBe('loggedIn');
  });

  it('a digest that is required and refused ends the login in an error, not the process', () => {
    const peer = ScriptedPeer.started({ firstLogin: 'once', offer: { headerDigest: ['CRC32C'] } });
    peer.login({ keys: { HeaderDigest: 'Reject' } });
    expect(peer.failure).toMatchObject({ code: 'ERR_DIGEST_REFUSED', exitCode: 5 });
    expect(peer.session.state).toBe('closed');
  });
});

describe('RFC 7143 §13.9 (TargetPortalGroupTag)', () => {
  it('a portal that has another tag at the next login is not logged in to', () => {
    const peer = ScriptedPeer.loggedIn({}, { tag: '1' });
    peer.submit('write', 512);
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    peer.login({ tag: '2' });
    expect(peer.failure).toMatchObject({ code: 'ERR_PORTAL_GROUP' });
    peer.at(peer.session.deadlineAtMs);
    peer.login({ tag: '1' });
    expect(peer.session.state).toBe('loggedIn');
  });

  it('a tag of the discovery that is stale is no reason to refuse the login', () => {
    const portals = [{ host: '192.0.2.1', port: 3260, portalGroupTag: 3 }];
    const peer = ScriptedPeer.started({ portals, firstLogin: 'once' });
    peer.login({ tag: '4' });
    expect(peer.session.state).toBe('loggedIn');
  });

  it('a portal whose group was renumbered is logged in to when every command was answered', () => {
    const peer = ScriptedPeer.loggedIn({}, { tag: '1' });
    peer.submit('write', 512);
    const [write] = peer.sent();
    peer.respond(write!);
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    peer.login({ tag: '2' });
    expect(peer.session.state).toBe('loggedIn');
  });

  it('a portal whose group was renumbered is logged in to once no request waits', () => {
    const peer = ScriptedPeer.loggedIn({}, { tag: '1' });
    peer.submit('write', 512);
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    peer.login({ tag: '2' });
    expect(peer.session.state).toBe('reconnecting');
    peer.session.requestsFailed();
    peer.at(peer.session.deadlineAtMs);
    peer.login({ tag: '2' });
    expect(peer.session.state).toBe('loggedIn');
  });

  /** A session of group 1 whose portal refuses it now: the next one is PORTALS[1]. */
  function atOtherPortal(waits: 'requestsWait' | 'nothingWaits' = 'requestsWait'): ScriptedPeer {
    const peer = ScriptedPeer.loggedIn({ portals: PORTALS }, { tag: '1' });
    peer.submit('write', 512);
    peer.loseLink();
    if (waits === 'nothingWaits') peer.session.requestsFailed();
    peer.at(peer.session.deadlineAtMs);
    expect(peer.session.state).toBe('reconnecting');
    peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0301 << 16 });
    peer.at(peer.session.deadlineAtMs);
    peer.effects.length = 0;
    return peer;
  }

  it('a portal of another group is refused while requests wait, as it would not end the old tasks', () => {
    const peer = atOtherPortal();
    peer.login({ tag: '2' });
    expect(peer.failure).toMatchObject({ code: 'ERR_PORTAL_GROUP' });
    expect(peer.session.state).toBe('reconnecting');
    peer.at(peer.session.deadlineAtMs);
    peer.login({ tag: '1' });
    expect(peer.session.state).toBe('loggedIn');
  });

  it('a portal of the same group takes over', () => {
    const peer = atOtherPortal();
    peer.login({ tag: '1' });
    expect(peer.session.state).toBe('loggedIn');
    expect(peer.take('portalChanged')).toHaveLength(1);
  });

  it('a portal of another group is used when no request waits any more, with a warning', () => {
    const peer = atOtherPortal('nothingWaits');
    peer.login({ tag: '2' });
    expect(peer.session.state).toBe('loggedIn');
    expect(peer.effects).toContainEqual({
      type: 'warned',
      message: expect.stringContaining('portal group 2'),
    });
    expect(peer.take('portalChanged')).toHaveLength(1);
  });

  it('portals that are added later are tried too', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.session.portals.add({ host: '192.0.2.9', port: 3260 });
    peer.session.portals.add({ host: '192.0.2.9', port: 3260 });
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    expect(opened(peer)).toEqual(['192.0.2.1', '192.0.2.1', '192.0.2.9']);
  });
});

describe('RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol (CHAP)): algorithms', () => {
  const secret = Buffer.from('initiator-secret');
  const chap = (...algorithms: ('MD5' | 'SHA1' | 'SHA256' | 'SHA3-256')[]): Config => ({
    firstLogin: 'once',
    login: { chap: { user: 'user', secret, algorithms } },
  });
  const challenge = Buffer.alloc(16, 9);

  /** The target chooses CHAP and takes the first of `known` in the list. */
  function choose(peer: ScriptedPeer, known: readonly string[]): string {
    const first = peer.sentOne(FROM.login);
    peer.answerLogin(first, { flags: 0, lines: ['TargetPortalGroupTag=1', 'AuthMethod=CHAP'] });
    const offer = peer.sentOne(FROM.login);
    const offered = linesOf(offer)[0]!.replace('CHAP_A=', '').split(',');
    const chosen = offered.find((number) => known.includes(number));
    if (chosen === undefined) {
      peer.answerLogin(offer, { flags: 0, word36: 0x0201 << 16 });
      return 'none';
    }
    const lines = [`CHAP_A=${chosen}`, 'CHAP_I=1', `CHAP_C=0x${challenge.toString('hex')}`];
    peer.answerLogin(offer, { flags: 0, lines });
    return chosen;
  }

  it('a target that takes 7 for SHA-1 (tgt) gets the other algorithms of the operator at once', () => {
    const peer = ScriptedPeer.started(chap('SHA3-256', 'SHA256', 'SHA1', 'MD5'));
    expect(choose(peer, ['7', '5'])).toBe('7');
    peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0200 << 16 });
    expect(peer.session.state).toBe('loggingIn');
    expect(peer.take('warned')).toMatchObject([{ message: expect.stringContaining('SHA256') }]);
    peer.at(peer.session.deadlineAtMs);
    expect(peer.nowMs).toBe(1000);
    expect(choose(peer, ['7', '5'])).toBe('5');
    const answer = peer.sentOne(FROM.login);
    const response = chapResponse('MD5', { identifier: 1, secret, challenge });
    expect(linesOf(answer)).toContain(`CHAP_R=0x${response.toString('hex')}`);
  });

  it('the algorithm that was found holds for later logins', () => {
    const peer = ScriptedPeer.started({ ...chap('SHA256', 'MD5'), firstLogin: 'forever' });
    choose(peer, ['7']);
    peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0200 << 16 });
    peer.at(peer.session.deadlineAtMs);
    peer.loseLink();
    peer.at(peer.session.deadlineAtMs);
    expect(choose(peer, ['7'])).toBe('none');
  });

  it('a target that supports none of several gets MD5 alone, if the operator allows it', () => {
    const peer = ScriptedPeer.started(chap('SHA3-256', 'MD5'));
    expect(choose(peer, [])).toBe('none');
    peer.at(peer.session.deadlineAtMs);
    const first = peer.sentOne(FROM.login);
    peer.answerLogin(first, { flags: 0, lines: ['TargetPortalGroupTag=1', 'AuthMethod=CHAP'] });
    expect(linesOf(peer.sentOne(FROM.login))).toEqual(['CHAP_A=5']);
  });

  it('algorithms that the operator does not allow are never offered', () => {
    const peer = ScriptedPeer.started(chap('SHA256'));
    choose(peer, ['7']);
    peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0200 << 16 });
    withoutChap(peer, 0x0200);
    expect(peer.session.state).toBe('closed');
    expect(peer.failure).toMatchObject({ code: 'ERR_CHAP_ALGORITHM' });
  });

  /** The login without CHAP that follows a refusal, and its refusal. */
  function withoutChap(peer: ScriptedPeer, status: number): void {
    peer.at(peer.session.deadlineAtMs);
    const request = peer.sentOne(FROM.login);
    expect(linesOf(request)).toContain('AuthMethod=None');
    peer.answerLogin(request, { flags: 0, word36: status << 16 });
  }

  it('a wrong secret is sent once and told as that', () => {
    const peer = ScriptedPeer.started(chap('SHA256', 'MD5'));
    choose(peer, ['5']);
    peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0201 << 16 });
    withoutChap(peer, 0x0202);
    expect(peer.failure).toMatchObject({ statusClass: 2, statusDetail: 1 });
    expect(peer.session.state).toBe('closed');
  });
});

describe('RFC 7143 §6.3 (Login Phase)', () => {
  it.each([
    ['NOP-In', OP.nopIn],
    ['SCSI Response', OP.scsiResponse],
    ['Text Response', OP.text],
    ['Async', OP.async],
  ])('any other PDU (%s) ends the connection', (_what, opcode) => {
    const peer = ScriptedPeer.started();
    peer.send({ opcode });
    expect(peer.failure).toMatchObject({ section: '6.3' });
  });

  it('a second login response to one request ends the connection', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ opcode: OP.login, flags: 0x87, itt: 0 });
    expect(peer.failure).toMatchObject({ section: '11.2.1.2' });
  });

  it('a login PDU may have 8192 bytes of data, and no more', () => {
    const peer = ScriptedPeer.started();
    const request = peer.sentOne(FROM.login);
    peer.answerLogin(request, { lines: ['x'.repeat(8192)] });
    expect(peer.failure).toMatchObject({ section: '13.12' });
  });

  it('a login that does not end in time is abandoned', () => {
    const peer = ScriptedPeer.started({ firstLogin: 'once' });
    peer.at(16_000);
    expect(peer.failure).toMatchObject({ errno: 'ETIMEDOUT' });
    expect(peer.session.state).toBe('closed');
  });
});

describe('RFC 7143 §11.10 (Text Request)', () => {
  const request = {
    final: true,
    continued: false,
    lun: { upper: 0, lower: 0 },
    targetTransferTag: 0xffffffff,
    data: textOf(['SendTargets=All']),
  };

  it('a text request takes a CmdSN, and its response is reported', () => {
    const peer = ScriptedPeer.loggedIn({ type: 'discovery' }, { tag: null });
    const initiatorTaskTag = peer.session.nextControlTag();
    peer.session.sendText({ ...request, initiatorTaskTag });
    const sent = peer.sentOne(FROM.text);
    expect(sent).toMatchObject({ cmdSN: 1, immediate: false, flags: 0x80, itt: initiatorTaskTag });
    peer.send({ opcode: OP.text, itt: sent.itt, data: textOf(['TargetName=iqn.2001-04.x:y']) });
    expect(peer.take('textReceived')).toHaveLength(1);
    expect(peer.session.connection?.window.cmdSN).toBe(2);
  });

  it('a text request waits for the command window, which the login may have left closed', () => {
    const peer = ScriptedPeer.loggedIn({ type: 'discovery' }, { tag: null, maxCmdSN: 0 });
    peer.session.sendText({ ...request, initiatorTaskTag: peer.session.nextControlTag() });
    expect(peer.sent()).toEqual([]);
    peer.maxCmdSN = 1;
    peer.send({ opcode: OP.nopIn });
    peer.sentOne(FROM.text);
  });

  it('a text request without a login is a LinkError', () => {
    const peer = ScriptedPeer.started({ type: 'discovery' });
    expect(() => peer.session.sendText({ ...request, initiatorTaskTag: 1 })).toThrow(
      expect.objectContaining({ errno: 'ENOTCONN' }),
    );
  });
});
