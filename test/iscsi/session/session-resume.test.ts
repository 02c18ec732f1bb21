import { describe, expect, it } from 'vitest';
import { ScriptedPeer } from '../../helpers/scripted-peer.js';

describe('a session that resumes that of another process', () => {
  it('the session begins in an outage: requests are held, and a login is tried at once', () => {
    const peer = ScriptedPeer.started({ firstLogin: 'resume' });
    expect(peer.session.state).toBe('reconnecting');
    expect(peer.effects.map((effect) => effect.type)).toEqual(['stateChanged', 'openLink']);
    peer.login();
    expect(peer.session.state).toBe('loggedIn');
    expect(peer.session.schedule.removalAtMs).toBe(Number.POSITIVE_INFINITY);
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

  it('the removal latency runs from the start of the session, and logins are tried after it', () => {
    const peer = ScriptedPeer.started({
      firstLogin: 'resume',
      timers: { removalLatencyMs: 8000 },
    });
    expect(peer.session.schedule.removalAtMs).toBe(1000 + 8000);
    peer.loseLink();
    while (peer.nowMs < 9000) peer.at(peer.session.deadlineAtMs);
    expect(peer.session.state).toBe('removed');
    expect(peer.session.deadlineAtMs).toBeLessThan(Number.POSITIVE_INFINITY);
  });
});
