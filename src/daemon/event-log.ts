import type { StackEvent } from './contract.js';
import type { Logger } from './log.js';

export type EventLevel = 'info' | 'warn' | 'error';

/** Writes an event into the daemon's log, with what it is about as fields. */
export function logEvent(log: Logger, event: StackEvent): void {
  // The log writes the time itself.
  const { time, ...facts } = event;
  log[eventLevel(event)](facts, wordsOf(event));
}

function wordsOf(event: StackEvent): string {
  switch (event.event) {
    case 'sessionState':
      return `session ${event.from} → ${event.to}: ${event.reason}`;
    case 'loginRefused':
      return `login refused: ${event.explanation}`;
    case 'deviceRemoved':
    case 'ioError':
      return `${event.event} (LUN ${event.lun}): ${event.reason}`;
    case 'warning':
      return event.message;
    case 'deviceInUse':
      return `LUN ${event.lun} is in use: ${event.holders}`;
    default:
      return event.event;
  }
}

/** How much an event matters to whoever reads a log. */
export function eventLevel(event: StackEvent): EventLevel {
  switch (event.event) {
    case 'ioError':
    case 'deviceRemoved':
      return 'error';
    case 'loginRefused':
    case 'deviceHeld':
    case 'deviceInUse':
    case 'warning':
      return 'warn';
    case 'sessionState':
      return event.to === 'reconnecting' || event.to === 'removed' ? 'warn' : 'info';
    case 'ready':
    case 'deviceAttached':
    case 'deviceReleased':
    case 'deviceResized':
    case 'portalChanged':
    case 'closed':
      return 'info';
  }
}
