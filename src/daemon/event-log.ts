import type { ProductEvent } from '../config/contract.js';
import type { Logger } from '../config/log.js';

type EventLevel = 'info' | 'warn' | 'error';

/**
 * Writes events into the daemon's log, each with what it is about as fields: a child of the log for
 * every session (`sessionId`, `target`), and one of that for every LUN (`lun`).
 */
export class SessionLogs {
  readonly #log: Logger;
  readonly #targetOf: (sessionId: string) => string | undefined;
  readonly #sessions = new Map<string, SessionLog>();

  constructor(log: Logger, targetOf: (sessionId: string) => string | undefined) {
    this.#log = log;
    this.#targetOf = targetOf;
  }

  write(event: ProductEvent): void {
    // The log writes the time itself; its children have what they are about.
    const { time, sessionId, ...facts } = event;
    const session = this.#session(sessionId);
    if ('lun' in facts) {
      const { lun, ...others } = facts;
      lunLog(session, lun)[eventLevel(event)](others, wordsOf(event));
    } else {
      session.log[eventLevel(event)](facts, wordsOf(event));
    }
    if (event.event === 'closed') this.#sessions.delete(sessionId);
  }

  #session(sessionId: string): SessionLog {
    const known = this.#sessions.get(sessionId);
    if (known !== undefined) return known;
    const target = this.#targetOf(sessionId);
    const names = target === undefined ? { sessionId } : { sessionId, target };
    const made = { log: this.#log.child(names), luns: new Map() };
    this.#sessions.set(sessionId, made);
    return made;
  }
}

type SessionLog = { readonly log: Logger; readonly luns: Map<number, Logger> };

function lunLog({ log, luns }: SessionLog, lun: number): Logger {
  const made = luns.get(lun) ?? log.child({ lun });
  luns.set(lun, made);
  return made;
}

function wordsOf(event: ProductEvent): string {
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
    case 'targetQuirk':
      return `quirk ${event.quirk} of the target (RFC 7143 §${event.section}): ${event.what}`;
    case 'deviceInUse':
      return `LUN ${event.lun} is in use: ${event.holders}`;
    default:
      return event.event;
  }
}

/** How much an event matters to the reader of a log. */
export function eventLevel(event: ProductEvent): EventLevel {
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
    case 'writesReplayed':
    case 'deviceResized':
    case 'portalChanged':
    case 'pathSwitched':
    case 'targetQuirk':
    case 'closed':
      return 'info';
    case 'pathState':
      return event.to === 'down' ? 'warn' : 'info';
  }
}
