import { describe, expect, it } from 'vitest';
import {
  hasOpened,
  isGone,
  nextPhase,
  PHASE_MOVES,
  type SessionPhase,
  type SessionPhaseEvent,
} from '../../src/supervisor/session-phase.js';

/** The outcome of a session that begins now. */
function phaseOf(...events: SessionPhaseEvent[]): SessionPhase {
  return events.reduce<SessionPhase>(nextPhase, 'opening');
}

describe('a managed session', () => {
  it('a session was of use from the moment its exports exist, even after its end', () => {
    expect(hasOpened(phaseOf())).toBe(false);
    for (const events of [[], ['left'], ['closed'], ['brokenOff'], ['left', 'closed']] as const) {
      expect(hasOpened(phaseOf('opened', ...events))).toBe(true);
    }
  });

  it('a session that is closed before it is ready never becomes ready', () => {
    expect(isGone(phaseOf('abandoned'))).toBe(false);
    const end = phaseOf('abandoned', 'opened', 'closed');
    expect([isGone(end), hasOpened(end)]).toEqual([true, false]);
  });

  it('a session that breaks off while it opens was never of use', () => {
    const end = phaseOf('brokenOff', 'opened');
    expect([isGone(end), hasOpened(end)]).toEqual([true, false]);
  });

  it('a session that is left stays left until it is closed', () => {
    expect(phaseOf('opened', 'left', 'opened')).toBe('left');
    expect(isGone(phaseOf('opened', 'left', 'closed'))).toBe(true);
  });

  it('a session comes back from no end', () => {
    const events: SessionPhaseEvent[] = ['opened', 'abandoned', 'left', 'brokenOff', 'closed'];
    for (const phase of Object.keys(PHASE_MOVES) as SessionPhase[]) {
      if (!isGone(phase)) continue;
      expect(events.map((event) => nextPhase(phase, event))).toEqual(events.map(() => phase));
    }
  });
});
