import type { DiscoveredTarget, SessionOptions } from '../config/contract.js';
import { parseSendTargets, SEND_TARGETS_ALL } from '../iscsi/session/send-targets.js';
import { threadRuntime } from '../lun/runtime.js';
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
