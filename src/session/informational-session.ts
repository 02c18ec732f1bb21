import { deferred } from '../base/deferred.js';
import type { InformationalSession, SessionOptions, TargetUrl } from '../config/contract.js';
import { threadRuntime } from '../lun/runtime.js';
import { portalWalk } from './next-portal.js';
import { tooLate } from './passthrough-queue.js';
import { SessionClient } from './session-client.js';
import { newIdentity } from './session-identity.js';
import { warningText } from './warning-text.js';

/**
 * Logs in to send commands; it makes no device. `warn` gets what is odd about the target, except
 * keys that were negotiated in an unusual way, which matter to disks only, and a rule that the
 * target breaks on every connection, which the error of the command reports.
 */
export async function openInformational(
  url: TargetUrl,
  options: SessionOptions,
  signal: AbortSignal,
  warn: (message: string) => void,
): Promise<InformationalSession> {
  const handle = await openClient(url, options, signal, warn);
  return {
    sessionId: handle.sessionId,
    lunFields: handle.lunFields,
    otherPortal: portalWalk(handle, { targetName: url.targetName, options, signal, warn }),
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
  warn: (message: string) => void = () => undefined,
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
  handle.listen((event) => {
    const isLeftOut = event.type === 'stuck' || (event.type === 'warned' && event.isOfKeys);
    const message = isLeftOut === true ? null : warningText(event);
    if (message !== null) warn(message);
  });
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
