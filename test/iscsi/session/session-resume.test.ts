import { describe, expect, it } from 'vitest';
import { ScriptedPeer } from '../../helpers/scripted-peer.js';

describe('a session that resumes that of another process', () => {
  it('the session begins in an outage: requests are held, and a login is tried at once', () => {
    const peer = ScriptedPeer.started({ firstLogin: 'resume' });
    expect(peer.session.state).toBe('reconnecting');
    expect(peer.effects.map((effect) => effect.type)).toEqual(['stateChanged', 'openLink']);
    peer.login();
    expect(peer.session.state).toBe('loggedIn');
  });

  it('§13.9 (TargetPortalGroupTag): the session stays in its old group while requests may wait', () => {
    const resumed = { firstLogin: 'resume', portalGroupTag: 1 } as const;
    const peer = ScriptedPeer.started(resumed);
    peer.login({ tag: '2' });
    expect(peer.failure).toMatchObject({ code: 'ERR_PORTAL_GROUP' });
    peer.at(peer.session.deadlineAtMs);
    peer.login({ tag: '1' });
    expect(peer.session.state).toBe('loggedIn');
  });

  it('an attempt that fails is followed by the next one, without an end', () => {
    const peer = ScriptedPeer.started({ firstLogin: 'resume' });
    peer.loseLink();
    while (peer.nowMs < 300_000) peer.at(peer.session.deadlineAtMs);
    expect(peer.session.state).toBe('reconnecting');
    expect(peer.session.deadlineAtMs).toBeLessThan(Number.POSITIVE_INFINITY);
  });
});
