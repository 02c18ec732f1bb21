import type { LunExport, OpenSession, ProductEvent, TargetUrl } from '../config/contract.js';
import { formatTargetUrl } from '../config/target-url.js';
import { humanBytes, printable } from './print.js';

/** The line that says an export is ready. */
export function readyText(url: TargetUrl, entry: LunExport): string {
  const target = formatTargetUrl({ ...url, lun: entry.lun });
  const size = humanBytes(entry.sizeBytes);
  const access = entry.readOnly ? ', read-only' : '';
  if (entry.device !== undefined) {
    return printable(`${entry.device}  ${size}  ${target}${entry.readOnly ? '  read-only' : ''}`);
  }
  const blocks = `${entry.blockSizeBytes}-byte blocks`;
  return printable(`serving ${target} at ${uriOf(entry)} (${size}, ${blocks}${access})`);
}

/** The object `--json` prints when an export is ready. */
export function readyEvent(stack: OpenSession, entry: LunExport, time: Date): ProductEvent {
  const { lun, device, socket, uri, sizeBytes, blockSizeBytes, readOnly } = entry;
  return {
    event: 'ready',
    time: time.toISOString(),
    sessionId: stack.sessionId,
    ...(device === undefined ? {} : { device }),
    ...(socket === undefined ? {} : { socket, uri: uri ?? uriOf(entry) }),
    lun,
    sizeBytes,
    blockSizeBytes,
    readOnly,
  };
}

/** NBD URI of an export on a unix socket; empty without a socket. */
export function uriOf(entry: LunExport): string {
  if (entry.uri !== undefined) return entry.uri;
  return entry.socket === undefined ? '' : `nbd+unix:///?socket=${entry.socket}`;
}

const REPLAY_WORDS = {
  sessionLost: 'the session is back',
  cacheLost: 'the disk reported that its cache is lost',
  takenOver: 'taken over from the process before',
} as const;

/** An event for people. */
export function eventText(event: ProductEvent): string {
  return printable(textOf(event));
}

function textOf(event: ProductEvent): string {
  switch (event.event) {
    case 'ready':
      return `${nameOf(event)} is ready`;
    case 'sessionState':
      return `session ${event.sessionId}: ${event.from} → ${event.to}: ${event.reason}`;
    case 'deviceAttached':
      return `${nameOf(event)} is attached`;
    case 'deviceHeld':
      return `${nameOf(event)}: holding ${event.requests} requests, ${humanBytes(event.bytes)}`;
    case 'deviceReleased':
      return `${nameOf(event)}: held requests continue`;
    case 'writesReplayed': {
      const { requests, bytes, milliseconds } = event;
      const what = `${requests} writes, ${humanBytes(bytes)}, ${milliseconds} ms`;
      const why = REPLAY_WORDS[event.reason];
      return `${nameOf(event)}: ${why}: unflushed writes are written again (${what})`;
    }
    case 'deviceRemoved':
      return `${nameOf(event)} is removed: ${event.reason}`;
    case 'deviceInUse':
      return `${nameOf(event)} is to be removed and in use: ${event.holders}`;
    case 'warning':
      return event.message;
    case 'deviceResized':
      return `${nameOf(event)} now has ${humanBytes(event.sizeBytes)}`;
    case 'portalChanged':
      return `portal ${event.from} → ${event.to}`;
    case 'pathState': {
      const { lun, portal, from, to, reason } = event;
      return `LUN ${lun}: path over ${portal}: ${from} → ${to}: ${reason}`;
    }
    case 'pathSwitched':
      return `LUN ${event.lun}: path ${event.from} → ${event.to}: ${event.reason}`;
    case 'targetQuirk':
      return (
        `the target violates RFC 7143 §${event.section}, which its session tolerates ` +
        `(${event.quirk}): ${event.what}`
      );
    case 'loginRefused': {
      const status = `class ${event.statusClass}, detail ${event.statusDetail}`;
      return `login refused (${status}): ${event.explanation}`;
    }
    case 'ioError': {
      const where = `${event.lengthBytes} bytes at ${event.offsetBytes}`;
      return `${nameOf(event)}: ${event.operation} of ${where}: ${event.errno}: ${event.reason}`;
    }
    case 'closed':
      return `session ${event.sessionId} is closed: ${event.reason}`;
  }
}

function nameOf(event: { readonly lun: number; readonly device?: string }): string {
  return event.device === undefined ? `LUN ${event.lun}` : `${event.device} (LUN ${event.lun})`;
}
