import type { DiscoveredTarget, SessionOptions } from '../config/contract.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import { iscsiNamesEqual } from '../iscsi/login/target-name.js';
import { parseSendTargets, SEND_TARGETS_ALL } from '../iscsi/session/send-targets.js';
import { type Runtime, threadRuntime } from '../lun/runtime.js';
import { SessionClient } from './session-client.js';
import { newIdentity } from './session-identity.js';
import { warningText } from './warning-text.js';

/**
 * Asks a portal for its targets in a Discovery session (RFC 7143 Appendix C (SendTargets
 * Operation)). `warn` gets what is left out and what is odd. Rejects with LinkError,
 * LoginRefusedError, ProtocolError or the signal's reason.
 */
export async function discover(
  portal: { readonly host: string; readonly port: number },
  options: SessionOptions,
  signal: AbortSignal,
  warn: (message: string) => void = () => undefined,
  runtime = threadRuntime(),
): Promise<readonly DiscoveredTarget[]> {
  const handle = new SessionClient(
    runtime,
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

/** Where a discovery at one portal tells that the target listens; null: it does not list it. */
export async function discoverPortals(
  {
    portal,
    targetName,
    runtime,
  }: {
    readonly portal: PortalAddress;
    readonly targetName: string;
    /** Absent: that of the thread. */
    readonly runtime?: Runtime;
  },
  options: SessionOptions,
  signal: AbortSignal,
): Promise<DiscoveredTarget['portals'] | null> {
  const targets = await discover(portal, options, signal, undefined, runtime);
  return targets.find(({ name }) => iscsiNamesEqual(name, targetName))?.portals ?? null;
}
