import { expect, it } from 'vitest';
import { FROM, type InitiatorPdu, linesOf } from '../../helpers/peer-pdu.js';
import { type Config, ScriptedPeer } from '../../helpers/scripted-peer.js';

const NEW_KEYS = /TaskReporting|iSCSIProtocolLevel/;
const OFFER: Config['offer'] = {
  headerDigest: ['None'],
  dataDigest: ['None'],
  taskReporting: ['ResponseFence', 'RFC3720'],
  protocolLevel: 1,
};
const CHAP = {
  user: 'alice',
  secret: Buffer.from('initiator-secret'),
  algorithms: ['MD5' as const],
};

/** Answers the first request with no authentication; returns the operational one. */
function operational(peer: ScriptedPeer): InitiatorPdu {
  const lines = ['TargetPortalGroupTag=1', 'AuthMethod=None'];
  peer.answerLogin(peer.sentOne(FROM.login), { lines });
  return peer.sentOne(FROM.login);
}

/** As a target that ends the connection at a key it does not know. */
function meetGotgt(peer: ScriptedPeer): void {
  if (NEW_KEYS.test(linesOf(operational(peer)).join())) peer.loseLink();
}

it('gotgt ends the connection at the keys of RFC 7143, and is logged in to without them, for good', () => {
  const peer = ScriptedPeer.started({ offer: OFFER, firstLogin: 'once' });
  meetGotgt(peer);
  peer.at(peer.session.deadlineAtMs);
  expect(peer.nowMs).toBe(1000);
  const second = operational(peer);
  expect(linesOf(second).join()).not.toMatch(NEW_KEYS);
  peer.answerLogin(second, { lines: [] });
  expect(peer.session.state).toBe('loggedIn');
  expect(peer.take('targetQuirk')).toMatchObject([{ quirk: 'new-keys' }]);
  peer.loseLink();
  peer.at(peer.session.deadlineAtMs);
  expect(linesOf(operational(peer)).join()).not.toMatch(NEW_KEYS);
});

it('a link that is lost twice at the keys of RFC 7143 is told once, and the keys are offered again', () => {
  const peer = ScriptedPeer.started({ offer: OFFER });
  meetGotgt(peer);
  peer.at(peer.session.deadlineAtMs);
  operational(peer);
  peer.loseLink();
  expect(peer.take('attemptFailed')).toMatchObject([{ error: { code: 'ERR_LINK' } }]);
  peer.at(peer.session.deadlineAtMs);
  expect(linesOf(operational(peer)).join()).toMatch(NEW_KEYS);
});

it('a link that is lost before the operational keys is no reason to leave keys out', () => {
  const peer = ScriptedPeer.started({ offer: OFFER });
  peer.loseLink();
  peer.at(peer.session.deadlineAtMs);
  expect(linesOf(operational(peer)).join()).toMatch(NEW_KEYS);
});

it('istgt and stgt reject the digest None, and are logged in to with CRC32C', () => {
  const peer = ScriptedPeer.started({ offer: OFFER, firstLogin: 'once' });
  const rejected = { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' };
  for (const key of Object.keys(rejected)) {
    const request = operational(peer);
    const isOffered = linesOf(request).includes('HeaderDigest=CRC32C,None');
    const lines = isOffered ? ['HeaderDigest=CRC32C', `${key}=Reject`] : [`${key}=Reject`];
    peer.answerLogin(request, { lines });
    expect(peer.session.state).toBe('loggingIn');
    peer.at(peer.session.deadlineAtMs);
  }
  peer.login({ keys: rejected });
  expect(peer.session.state).toBe('loggedIn');
  expect(peer.session.connection?.parameters).toMatchObject({
    headerDigest: 'CRC32C',
    dataDigest: 'CRC32C',
  });
  expect(peer.take('targetQuirk')).toMatchObject([{ quirk: 'digest-none-refused' }]);
});

/** Answers with CHAP, whatever was offered, and refuses it at its first step. */
function refuseChap(peer: ScriptedPeer, status: number): void {
  const lines = ['TargetPortalGroupTag=1', 'AuthMethod=CHAP'];
  peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, lines });
  peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: status << 16 });
}

it('LIO and Celerra choose CHAP without accounts, and are logged in to without it', () => {
  const peer = ScriptedPeer.started({ login: { chap: CHAP }, firstLogin: 'once' });
  refuseChap(peer, 0x0201);
  expect(peer.session.state).toBe('loggingIn');
  peer.at(peer.session.deadlineAtMs);
  peer.login();
  expect(peer.session.state).toBe('loggedIn');
  expect(peer.take('targetQuirk')).toMatchObject([{ quirk: 'chap-unwanted', section: '12.1' }]);
});

it('mutual CHAP is never left out: a target that has to prove itself is refused', () => {
  const target = { secret: Buffer.from('target-secret-of-ours') };
  const login = { chap: { ...CHAP, target } };
  const peer = ScriptedPeer.started({ login, firstLogin: 'once' });
  refuseChap(peer, 0x0201);
  expect(peer.session.state).toBe('closed');
});

it('a login without CHAP that is refused too is tried once, and the first reason is told', () => {
  const peer = ScriptedPeer.started({ login: { chap: CHAP } });
  refuseChap(peer, 0x0201);
  peer.at(peer.session.deadlineAtMs);
  peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0202 << 16 });
  expect(peer.take('attemptFailed')).toMatchObject([{ error: { statusDetail: 1 } }]);
  peer.at(peer.session.deadlineAtMs);
  refuseChap(peer, 0x0201);
  expect(peer.take('attemptFailed')).toMatchObject([{ error: { statusDetail: 1 } }]);
});
