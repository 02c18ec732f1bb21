import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import type { PathMember } from '../session/paths/path-member.js';
import type { DaemonSession } from './daemon-session.js';
import { isOtherPortal, type ResolvedLogin } from './resolved-login.js';

type FoundPath = { readonly session: DaemonSession; readonly member: PathMember };

/** The path whose session has this ID; null: it is the ID of no path, or of a whole session. */
export function pathOf(sessions: readonly DaemonSession[], sessionId: string): FoundPath | null {
  for (const session of sessions) {
    const members = session.sessionId === sessionId ? [] : (session.stack.paths?.members ?? []);
    const member = members.find(({ client }) => client.sessionId === sessionId);
    if (member !== undefined) return { session, member };
  }
  return null;
}

/** A portal that the session was not asked for with becomes one more path of its disks. */
export async function loginPath(session: DaemonSession, wished: ResolvedLogin): Promise<void> {
  if (!isOtherPortal(session.plan, wished)) return;
  await session.stack.pathSources.login(wished.request.portal);
}

/**
 * Logs out the session of one path; its disks stay. Throws UsageError 28 if a disk has no other
 * path that can be used, unless it is forced.
 */
export async function logoutPath(
  path: FoundPath,
  options: { readonly force: boolean },
): Promise<void> {
  refuseOnlyPath(path, options);
  await path.session.stack.pathSources.remove(path.member);
}

/** Throws as `logoutPath`. */
export function refuseOnlyPath(
  { session, member }: FoundPath,
  { force }: { readonly force: boolean },
): void {
  const { stack } = session;
  const needing = session.luns.find(({ unit: { lun } }) => {
    const usable = (stack.paths?.unitOf(lun)?.paths ?? []).filter(({ path }) => path.isUsable);
    return usable.length === 1 && usable[0]?.member === member;
  });
  if (needing !== undefined && !force) {
    throw new UsageError(
      `LUN ${needing.unit.lun} of ${session.plan.request.targetName} has no other path that can ` +
        `be used than ${member.name}. \`logout ${session.sessionId}\` ends the whole session; ` +
        '--force logs out this path, and the disk is away until another one is back.',
      { exitCode: EXIT_CODES.busy.code, code: 'ERR_ONLY_PATH' },
    );
  }
}
