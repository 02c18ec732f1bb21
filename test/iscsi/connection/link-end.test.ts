import { describe, expect, it } from 'vitest';
import { FROM, OP } from '../../helpers/peer-pdu.js';
import { ScriptedPeer } from '../../helpers/scripted-peer.js';

/** A session whose logout request has been sent, and a write of it without an answer. */
function leaving() {
  const peer = ScriptedPeer.loggedIn({ timers: { noopIntervalMs: 0 } });
  peer.submit('write', 4096, { operation: 0x2a });
  peer.sent();
  peer.session.requestLogout(peer.nowMs);
  peer.settle();
  return { peer, logout: peer.sentOne(FROM.logout) };
}

const endsOf = (peer: ScriptedPeer) => peer.take('closeLink').map(({ end }) => end);

describe('the connection of a session', () => {
  it('the connection ends in order after a Logout Response of success', () => {
    const { peer, logout } = leaving();
    peer.send({ opcode: OP.logout, itt: logout.itt, ttt: 0 });
    expect([endsOf(peer), peer.session.state]).toEqual([['orderly'], 'closed']);
  });

  it('the connection ends in order if the target requested the logout', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.send({ opcode: OP.async, word36: 1 << 24, word40: 9, ttt: 0 });
    const logout = peer.sentOne(FROM.logout);
    peer.send({ opcode: OP.logout, itt: logout.itt, ttt: 0 });
    expect(endsOf(peer)).toEqual(['orderly']);
  });

  it.each([1, 2, 3])('the connection ends abruptly after a Logout Response of %i', (response) => {
    const { peer, logout } = leaving();
    peer.send({ opcode: OP.logout, itt: logout.itt, ttt: 0, byte2: response });
    expect(endsOf(peer)).toEqual(['abrupt']);
  });

  it('the connection ends abruptly if the logout is not answered in time', () => {
    const { peer } = leaving();
    peer.at(peer.nowMs + 3000);
    expect([endsOf(peer), peer.session.state]).toEqual([['abrupt'], 'closed']);
  });

  it('the connection ends abruptly if the session abandons it', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.loseLink();
    expect(endsOf(peer)).toEqual(['abrupt']);
  });

  it('the connection ends abruptly during the login', () => {
    const peer = ScriptedPeer.started();
    peer.session.requestLogout(peer.nowMs);
    peer.settle();
    expect(endsOf(peer)).toEqual(['abrupt']);
  });
});
