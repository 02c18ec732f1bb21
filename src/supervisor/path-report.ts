import * as z from 'zod';
import { isServing, PATH_WORDS } from '../bridge/paths/path.js';
import { PATH_STATES } from '../bridge/paths/path-state.js';
import { formatPortal } from '../iscsi/login/portal.js';
import { ACCESS_STATES } from '../scsi/target-port-groups.js';
import type { PathMember } from '../session/paths/path-member.js';
import type { DaemonSession } from './daemon-session.js';

const count = z.number().int().min(0);

/** One of several paths to a disk. */
export const pathSchema = z.object({
  lun: count,
  /** The session of the path, with its portal. */
  UniqueSessionId: z.string().regex(/^[0-9a-f]{16}$/),
  portal: z.string(),
  /** The target that the path goes to; of a name of its own if it has the same disk. */
  TargetiSCSIName: z.string(),
  /** `ready`: requests may go over it, if its port takes commands. */
  state: z.enum(PATH_STATES),
  /** `state` and `access` in one word, as the event pathState has it. */
  pathState: z.enum(PATH_WORDS),
  /** Why it is in its state. */
  reason: z.string(),
  /** State of its target port group (ALUA); `unknown`: the target has one state for all ports. */
  access: z.enum(ACCESS_STATES),
  /** Target port group; null if the target reports none. */
  group: count.nullable(),
  preferred: z.boolean(),
  /** It has failed so often recently that it is used only if no other path is left. */
  suspect: z.boolean(),
  commandsInFlight: count,
  /** Times that its session was lost while requests could go over it. */
  failures: count,
  /** Bytes of the session of the path, of all its LUNs. */
  BytesSent: count,
  BytesReceived: count,
});
export type PathView = z.output<typeof pathSchema>;

/** Requests may go over it: its disk is found, and its port takes commands for data. */
export function isPathUsable({ state, access }: Pick<PathView, 'state' | 'access'>): boolean {
  return state === 'ready' && isServing(access);
}

/**
 * The paths of all disks of a session; none if it has one portal only. While no portal but the
 * first one has been reached, the disks go over the first session only.
 */
export function viewPaths(session: DaemonSession): PathView[] {
  const { paths, luns } = session.stack;
  if (paths === null) return [];
  if (!paths.isSpread) {
    return luns.flatMap(({ unit: { lun } }) =>
      paths.members
        .filter((member) => member.reaches(lun))
        .map((member) => unspread(lun, member, targetOf(session, member))),
    );
  }
  return luns.flatMap(({ unit: { lun } }) =>
    (paths.unitOf(lun)?.paths ?? []).map(({ member, path, group, reason, failures }) => ({
      lun,
      UniqueSessionId: member.client.sessionId,
      portal: formatPortal(member.portal),
      TargetiSCSIName: targetOf(session, member),
      state: path.state,
      pathState: path.words,
      reason,
      access: path.access,
      group,
      preferred: path.isPreferred,
      suspect: path.isSuspect,
      commandsInFlight: path.inFlight,
      failures: failures.total,
      BytesSent: member.client.initiator.bytesSentTotal,
      BytesReceived: member.client.initiator.bytesReceivedTotal,
    })),
  );
}

function targetOf({ plan }: DaemonSession, { other }: PathMember): string {
  return other?.targetName ?? plan.request.targetName;
}

function unspread(
  lun: number,
  { client, portal, isLoggedIn }: PathMember,
  TargetiSCSIName: string,
): PathView {
  const { bytesSentTotal, bytesReceivedTotal } = client.initiator;
  return {
    lun,
    UniqueSessionId: client.sessionId,
    portal: formatPortal(portal),
    TargetiSCSIName,
    state: isLoggedIn ? 'ready' : 'down',
    pathState: isLoggedIn ? 'ready' : 'down',
    reason: isLoggedIn ? 'logged in' : 'it has not been reached',
    access: 'unknown',
    group: null,
    preferred: false,
    suspect: false,
    commandsInFlight: 0,
    failures: 0,
    BytesSent: bytesSentTotal,
    BytesReceived: bytesReceivedTotal,
  };
}
