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

it('a link that is lost twice at the keys of RFC 7143 is reported once, and the keys are offered again', () => {
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

it('a login without CHAP that is refused too is tried once, and the first reason is reported', () => {
  const peer = ScriptedPeer.started({ login: { chap: CHAP } });
  refuseChap(peer, 0x0201);
  peer.at(peer.session.deadlineAtMs);
  peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0202 << 16 });
  expect(peer.take('attemptFailed')).toMatchObject([{ error: { statusDetail: 1 } }]);
  peer.at(peer.session.deadlineAtMs);
  refuseChap(peer, 0x0201);
  expect(peer.take('attemptFailed')).toMatchObject([{ error: { statusDetail: 1 } }]);
});

const LOWER = 'iqn.2001-04.com.example:disk';

/** A target that knows one spelling of its name, and how often it was asked for each. */
function logInAs(given: string, known: string, config: Config = {}) {
  const asked: string[] = [];
  const peer = ScriptedPeer.started({
    login: { targetName: given },
    firstLogin: 'once',
    ...config,
  });
  const tryLogin = () => {
    const request = peer.sentOne(FROM.login);
    const name = linesOf(request)
      .find((line) => line.startsWith('TargetName='))
      ?.slice('TargetName='.length);
    asked.push(name ?? '');
    if (name === known) {
      peer.answerLogin(request, { lines: ['TargetPortalGroupTag=1', 'AuthMethod=None'] });
      peer.answerLogin(peer.sentOne(FROM.login), { lines: [] });
    } else {
      peer.answerLogin(request, { flags: 0, word36: 0x0203 << 16 });
    }
  };
  tryLogin();
  while (peer.session.state === 'loggingIn') {
    peer.at(peer.session.deadlineAtMs);
    tryLogin();
  }
  return { peer, asked, tryLogin };
}

it.each([
  ['in capital letters', 'IQN.2001-04.COM.EXAMPLE:DISK', LOWER],
  [
    'of a target that has capital letters (tgt)',
    'iqn.2001-04.com.example:Disk',
    'iqn.2001-04.com.example:Disk',
  ],
  [
    'with a letter and its accent apart',
    'iqn.2001-04.com.example:e\u0301t\u00e9',
    'iqn.2001-04.com.example:\u00e9t\u00e9',
  ],
  [
    'in small digits of a target that has them in capital ones (illumos)',
    'eui.02004567a425678d',
    'eui.02004567A425678D',
  ],
])('a name %s finds its target, and its spelling is kept', (_what, given, known) => {
  const { peer, asked, tryLogin } = logInAs(given, known);
  expect(peer.session.state).toBe('loggedIn');
  expect(asked[0]).toBe(given);
  const spellings = () =>
    peer
      .take('warned')
      .flatMap(({ message }) => (message.includes('know the name') ? [message] : []));
  const warnings = spellings();
  expect(warnings).toHaveLength(given === known ? 0 : 1);
  if (given !== known) expect(warnings[0]).toContain(`it is "${known}" there`);
  peer.loseLink();
  peer.at(peer.session.deadlineAtMs);
  tryLogin();
  expect(asked.at(-1)).toBe(known);
  expect(peer.session.state).toBe('loggedIn');
  expect(spellings()).toEqual([]);
});

it('the login fails with Not Found after it has tried each spelling of the name once', () => {
  const { peer, asked } = logInAs('IQN.2001-04.COM.EXAMPLE:DISK', 'iqn.2001-04.com.example:other');
  expect(asked).toEqual(['IQN.2001-04.COM.EXAMPLE:DISK', LOWER]);
  expect(peer.failure).toMatchObject({ statusClass: 2, statusDetail: 3 });
});

it('a target that repeats its name in lower case keeps its session', () => {
  const login = { targetName: 'IQN.2001-04.COM.EXAMPLE:DISK' };
  const peer = ScriptedPeer.started({ login, firstLogin: 'once' });
  const lines = ['TargetPortalGroupTag=1', 'AuthMethod=None', `TargetName=${LOWER}`];
  peer.answerLogin(peer.sentOne(FROM.login), { lines });
  peer.answerLogin(peer.sentOne(FROM.login), { lines: [] });
  expect(peer.session.state).toBe('loggedIn');
});
