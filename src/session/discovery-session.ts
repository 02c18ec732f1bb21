import type {
  DiscoveredTarget,
  InformationalSession,
  SessionOptions,
  TargetUrl,
} from '../config/contract.js';
import { parseSendTargets, SEND_TARGETS_ALL } from '../iscsi/session/discovery.js';
import { threadRuntime } from '../lun/runtime.js';
import { SessionClient } from './session-client.js';
import { newIdentity } from './session-identity.js';

/**
 * Asks a portal for its targets in a Discovery session (RFC 7143 Appendix C (SendTargets
 * Operation)). Rejects with LinkError, LoginRefusedError, ProtocolError or the signal's reason.
 */
export async function discover(
  portal: { readonly host: string; readonly port: number },
  options: SessionOptions,
  signal: AbortSignal,
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
  await handle.login(signal);
  try {
    const pairs = await handle.text(SEND_TARGETS_ALL);
    return parseSendTargets(pairs, portal).targets;
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
  return {
    sessionId: handle.sessionId,
    lunFields: handle.lunFields,
    execute: (request) => handle.execute(request),
    ping: (bytes) => handle.ping(bytes),
    close: () => handle.logout(),
  };
}
