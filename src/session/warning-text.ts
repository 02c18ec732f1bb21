import type { EventBody } from '../config/contract.js';
import { formatPortal } from '../iscsi/login/portal.js';
import { parseSense } from '../scsi/sense.js';
import { senseToWords } from '../scsi/verdict.js';
import type { SessionEvent } from './session-event.js';

/** Names of RFC 7143 §11.9.1 (AsyncEvent); 248–255 are the vendor's. */
const ASYNC_EVENTS: readonly string[] = [
  'a SCSI event',
  'a request to log out',
  'that it drops a connection',
  'that it drops all connections',
  'a request to negotiate anew',
  'that all tasks of a LUN are ended',
];

/** The event that says what a session reports; null for what has none, or more than one. */
export function eventOf(news: SessionEvent): EventBody | null {
  switch (news.type) {
    case 'portalChanged':
      return {
        event: 'portalChanged',
        from: formatPortal(news.from),
        to: formatPortal(news.to),
      };
    case 'targetQuirk': {
      const { quirk, section, what } = news;
      return { event: 'targetQuirk', quirk, section, what };
    }
    default: {
      const message = warningText(news);
      return message === null ? null : { event: 'warning', message };
    }
  }
}

/** What a session has to say that no event of its own tells, for a person; null for the rest. */
export function warningText(effect: SessionEvent): string | null {
  switch (effect.type) {
    case 'targetQuirk': {
      const { quirk, section, what } = effect;
      return `the target does not keep to RFC 7143 §${section} (${quirk}): ${what}`;
    }
    case 'warned':
      return effect.message;
    case 'redirected': {
      const how = effect.permanent ? 'for good' : 'for now';
      const from = formatPortal(effect.from);
      return `the target at ${from} redirects to ${formatPortal(effect.to)} ${how}`;
    }
    case 'stuck': {
      const { error, connections } = effect;
      return (
        `each of the last ${connections} connections ended without an answered command, because ` +
        `the target broke the same rule: ${error.message}. ${error.nextStep} Attempts continue.`
      );
    }
    case 'escalated':
      return effect.isWanted
        ? 'resetting the logical unit, so that old writes of a session that is gone end'
        : `a task took too long: ${STEPS[effect.step]}`;
    case 'rejected':
      return `the target rejected a PDU of opcode ${effect.opcode} with reason ${effect.reason}`;
    case 'asyncReceived': {
      const { event, sense } = effect.message;
      const name = ASYNC_EVENTS[event] ?? `event ${event}`;
      const words = sense.length > 0 ? `: ${senseToWords(parseSense(sense))}` : '';
      return `the target announced ${name}${words}`;
    }
    default:
      return null;
  }
}

const KIB = 1024;

/** For people: a disk refused a READ or WRITE that its limits allow, and gets shorter ones. */
export function transfersCutText(lun: number, refusedBytes: number, bytesMax: number): string {
  return (
    `LUN ${lun} refused a transfer of ${refusedBytes / KIB} KiB, which the limits it reports ` +
    `allow: from now on transfers have ${bytesMax / KIB} KiB at most, and no request fails for it`
  );
}

const STEPS = {
  abortTask: 'asking the target to abort it',
  logicalUnitReset: 'resetting the logical unit',
  targetWarmReset: 'resetting the target',
  reconnect: 'connecting anew',
} as const;
