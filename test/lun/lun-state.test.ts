import { describe, expect, it } from 'vitest';
import {
  isHeld,
  LUN_MOVES,
  LUN_STATES,
  type LunEvent,
  type LunState,
  lunMove,
} from '../../src/lun/lun-state.js';

/**
 * The edges that users are promised (docs/OUTAGES.md), written down without the table: what happens
 * to a LUN, and in which state it is then.
 */
const PROMISED: readonly (readonly [string, LunState, LunEvent, LunState])[] = [
  ['requests wait while the session is away', 'serving', 'sessionLost', 'away'],
  ['requests wait while a changed disk is probed', 'serving', 'probeRequested', 'checking'],
  ['a disk that is back is probed before anything is sent', 'away', 'sessionBack', 'checking'],
  ['the same disk serves again', 'checking', 'sameDiskFound', 'serving'],
  ['another disk is never written to', 'checking', 'otherDiskFound', 'removed'],
  ['another disk found by a later probe is never written to', 'away', 'otherDiskFound', 'removed'],
  ['a LUN that the target does not have is away', 'checking', 'noDiskFound', 'away'],
  ['a LUN that is mapped again serves again', 'away', 'sameDiskFound', 'serving'],
  ['what waits fails after the removal latency', 'away', 'removalLatencyPassed', 'removed'],
  ['what waits fails too if a probe takes as long', 'checking', 'removalLatencyPassed', 'removed'],
  ['a removed disk that is back is exported again', 'removed', 'sameDiskFound', 'returning'],
  ['a returning LUN serves once it is exported', 'returning', 'exported', 'serving'],
  ['a device that is held open keeps it removed', 'returning', 'exportFailed', 'removed'],
  ['a loss of the session in the meantime makes it wait', 'returning', 'exportedTooLate', 'away'],
  ['another disk does not come back', 'removed', 'otherDiskFound', 'removed'],
];

describe('the lifecycle of a LUN', () => {
  it.each(PROMISED)('%s: %s, %s → %s', (_promise, from, event, to) => {
    expect(lunMove(from, event)).toBe(to);
  });

  it('only a probe that found the same disk lets held requests go', () => {
    const ways = everyMove().filter(({ from, to }) => to === 'serving' && from !== 'serving');
    expect(ways.map(({ from, event }) => `${from} ${event}`).sort()).toEqual([
      'away sameDiskFound',
      'checking sameDiskFound',
      'returning exported',
    ]);
    // And it is exported again only then.
    const returns = everyMove().filter(
      ({ from, to }) => to === 'returning' && from !== 'returning',
    );
    expect(returns).toEqual([{ from: 'removed', event: 'sameDiskFound', to: 'returning' }]);
  });

  it('a loss of the session never leaves a LUN serving or being checked', () => {
    for (const { event, to } of everyMove()) {
      if (event === 'sessionLost') expect(['away', 'returning', 'removed']).toContain(to);
    }
  });

  it('every state ends with a close, and nothing follows it', () => {
    for (const state of LUN_STATES) expect(lunMove(state, 'closeRequested')).toBe('closed');
    expect(Object.keys(LUN_MOVES.closed)).toEqual(['closeRequested']);
    expect(() => lunMove('closed', 'sameDiskFound')).toThrow('no move from closed');
  });

  it('a serving or removed LUN has no removal ahead of it', () => {
    expect(() => lunMove('serving', 'removalLatencyPassed')).toThrow('no move');
    expect(() => lunMove('removed', 'removalLatencyPassed')).toThrow('no move');
    expect(() => lunMove('serving', 'otherDiskFound')).toThrow('no move');
  });

  it('requests are held in exactly the states between serving and removed', () => {
    expect(LUN_STATES.filter(isHeld)).toEqual(['checking', 'away', 'returning']);
  });
});

function everyMove(): { from: LunState; event: LunEvent; to: LunState }[] {
  return LUN_STATES.flatMap((from) =>
    Object.entries(LUN_MOVES[from]).map(([event, to]) => ({ from, event: event as LunEvent, to })),
  );
}
