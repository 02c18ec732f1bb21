/**
 * What a managed session is for those who have it, beside what its target says of it:
 * - `opening`: it logs in and makes its exports, or takes them back;
 * - `abandoned`: it is closed before it was ready, and what the opening waits for comes to an end;
 * - `open`: its exports are of use;
 * - `left`: its devices wait for the next process, and nothing more is acknowledged here;
 * - `failed`, `over`: it is gone, and was never of use, or was.
 */
export type SessionPhase = 'opening' | 'abandoned' | 'open' | 'left' | 'failed' | 'over';

export type SessionPhaseEvent = 'opened' | 'abandoned' | 'left' | 'brokenOff' | 'closed';

/** What is not here changes nothing: the same end may come from several sides. */
export const PHASE_MOVES = {
  opening: { opened: 'open', abandoned: 'abandoned', brokenOff: 'failed' },
  abandoned: { closed: 'failed' },
  open: { left: 'left', brokenOff: 'over', closed: 'over' },
  left: { brokenOff: 'over', closed: 'over' },
  failed: {},
  over: {},
} satisfies Record<SessionPhase, Partial<Record<SessionPhaseEvent, SessionPhase>>>;

export function nextPhase(phase: SessionPhase, event: SessionPhaseEvent): SessionPhase {
  const moves: Partial<Record<SessionPhaseEvent, SessionPhase>> = PHASE_MOVES[phase];
  return moves[event] ?? phase;
}

/** Its exports are or were of use to a client. */
export function hasOpened(phase: SessionPhase): boolean {
  return phase === 'open' || phase === 'left' || phase === 'over';
}

export function isGone(phase: SessionPhase): boolean {
  return phase === 'failed' || phase === 'over';
}
