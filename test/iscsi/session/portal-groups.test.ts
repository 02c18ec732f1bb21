import { describe, expect, it } from 'vitest';
import { FROM, OP } from '../../helpers/peer-pdu.js';
import { PORTALS, ScriptedPeer } from '../../helpers/scripted-peer.js';

/** AsyncEvent 1: the target asks for a logout within 10 s. */
const LOG_OUT = { opcode: OP.async, ttt: 0, word36: 1 << 24, word40: 10 };

type Last = 'every command is answered' | 'a command is in flight';

/** A session of portal group 1 with one write, which ends as told; its next portal is PORTALS[1]. */
function endedBy(how: 'logout' | 'cut', last: Last): ScriptedPeer {
  const peer = ScriptedPeer.loggedIn({ portals: PORTALS }, { tag: '1' });
  peer.submit('write', 512);
  const write = peer.sentOne(FROM.scsiCommand);
  if (how === 'logout') peer.send(LOG_OUT);
  if (last === 'every command is answered') peer.respond(write);
  // It waits, and is written by the next login.
  peer.submit('write', 512);
  if (how === 'logout') {
    const logout = peer.sent().find(({ opcode }) => opcode === FROM.logout);
    peer.send({ opcode: OP.logout, itt: logout?.itt ?? 0, ttt: 0 });
  } else {
    peer.sent();
    peer.loseLink();
  }
  expect(peer.session.state).toBe('reconnecting');
  peer.at(peer.session.deadlineAtMs);
  peer.answerLogin(peer.sentOne(FROM.login), { flags: 0, word36: 0x0301 << 16 });
  peer.at(peer.session.deadlineAtMs);
  peer.effects.length = 0;
  return peer;
}

describe('RFC 7143 §4.4.1 (iSCSI Architecture Model): another portal group while requests wait', () => {
  it('the portal of another group is logged in to if every command was answered before the logout', () => {
    const peer = endedBy('logout', 'every command is answered');
    peer.login({ tag: '2' });
    expect(peer.session.state).toBe('loggedIn');
    expect(peer.take('portalChanged')).toHaveLength(1);
  });

  it.each([
    ['the logout left a command unanswered', 'logout'],
    ['the link was cut with a command in flight', 'cut'],
  ] as const)(
    'the portal of another group is not logged in to if %s, as the write could be overtaken',
    (_why, how) => {
      const peer = endedBy(how, 'a command is in flight');
      peer.login({ tag: '2' });
      expect(peer.failure).toMatchObject({ code: 'ERR_PORTAL_GROUP' });
      expect(peer.session.state).toBe('reconnecting');
      peer.at(peer.session.deadlineAtMs);
      peer.login({ tag: '1' });
      expect(peer.session.state).toBe('loggedIn');
    },
  );

  it('the portal of another group is not logged in to if the link was cut with the last write unanswered', () => {
    // The second write was sent after the first was answered, and is in flight.
    const peer = endedBy('cut', 'every command is answered');
    peer.login({ tag: '2' });
    expect(peer.failure).toMatchObject({ code: 'ERR_PORTAL_GROUP' });
  });
});
