import { deferred } from '../base/deferred.js';
import type {
  DiscoveredTarget,
  InformationalSession,
  SessionOptions,
  TargetUrl,
} from '../config/contract.js';
import { parseSendTargets, SEND_TARGETS_ALL } from '../iscsi/session/send-targets.js';
import { threadRuntime } from '../lun/runtime.js';
import { tooLate } from './passthrough-queue.js';
import { SessionClient } from './session-client.js';
import { newIdentity } from './session-identity.js';
import { warningText } from './warning-text.js';

/**
 * Asks a portal for its targets in a Discovery session (RFC 7143 Appendix C (SendTargets
 * Operation)). `warn` is told what is left out and what is odd. Rejects with LinkError,
 * LoginRefusedError, ProtocolError or the signal's reason.
 */
export async function discover(
  portal: { readonly host: string; readonly port: number },
  options: SessionOptions,
  signal: AbortSignal,
  warn: (message: string) => void = () => undefined,
): Promise<readonly DiscoveredTarget[]> {
  const handle = new SessionClient(
    threadRuntime(),
    {
      type: 'discovery',
      portals: [portal],
      identity: newIdentity(),
      firstLogin: 'once',
    },
    options,
  );
  handle.listen((event) => {
    const message = warningText(event);
    if (message !== null) warn(message);
  });
  await handle.login(signal);
  try {
    const pairs = await handle.text(SEND_TARGETS_ALL);
    const { targets, warnings } = parseSendTargets(pairs, portal);
    for (const warning of warnings) warn(warning);
    return targets;
  } finally {
    await handle.logout();
  }
}

/** Logs in for questions only: no device is ever made of what it finds. */
export async function openInformational(
  url: TargetUrl,
  options: SessionOptions,
  signal: AbortSignal,
): Promise<InformationalSession> {
  const handle = await openClient(url, options, signal);
  return {
    sessionId: handle.sessionId,
    lunFields: handle.lunFields,
    execute: (request) => inTime(handle, handle.execute(request)),
    ping: (bytes) => inTime(handle, handle.ping(bytes)),
    close: () => handle.logout(),
  };
}

/** The session of `openInformational` itself. */
export async function openClient(
  url: TargetUrl,
  options: SessionOptions,
  signal: AbortSignal,
): Promise<SessionClient> {
  const handle = new SessionClient(
    threadRuntime(),
    {
      type: 'informational',
      targetName: url.targetName,
      portals: [{ host: url.host, port: url.port }, ...options.portals],
      identity: newIdentity(),
      firstLogin: 'once',
    },
    options,
  );
  await handle.login(signal);
  return handle;
}

/**
 * The answer to a question, or LinkError: it has the time of a login and of an outage together,
 * over all reconnects, also while it is at the target.
 */
export function inTime<T>(handle: SessionClient, question: Promise<T>): Promise<T> {
  const { patienceMs } = handle;
  if (patienceMs === Number.POSITIVE_INFINITY) return question;
  const { clock } = threadRuntime();
  const late = deferred<never>();
  const cancel = clock.at(clock.nowMs() + patienceMs, () =>
    late.reject(tooLate(patienceMs, handle.trouble)),
  );
  return Promise.race([question, late.promise]).finally(cancel);
}
