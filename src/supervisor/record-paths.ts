import * as z from 'zod';
import type { PortalAddress } from '../iscsi/login/portal.js';
import { samePortal } from '../iscsi/session/portal-list.js';
import type { PathPlace } from '../session/paths/path-places.js';

/** Where the sessions of a record go, the first one first; absent: there is one. */
export const recordPathsSchema = z
  .array(
    z.strictObject({
      host: z.string(),
      port: z.number().int(),
      /** Its number among the sessions to this portal. */
      number: z.number().int().min(0),
      /** Only a discovery has reported it; no login names it. */
      isSpare: z.boolean(),
      /** The target of another name that it goes to, and which units it has at which LUNs. */
      other: z
        .strictObject({
          targetName: z.string(),
          units: z
            .array(
              z.strictObject({
                lun: z.number().int(),
                otherLun: z.number().int(),
                otherField: z.string().regex(/^[0-9a-f]{16}$/),
              }),
            )
            .readonly(),
        })
        .optional(),
    }),
  )
  .optional();

export type RecordPaths = z.output<typeof recordPathsSchema>;

/** The places of running sessions, as a record has them. */
export function recordPaths(places: readonly PathPlace[]): RecordPaths {
  if (places.length < 2) return undefined;
  return places.map(({ portal: { host, port }, ...rest }) => ({ host, port, ...rest }));
}

/**
 * The paths that the next session of a target keeps: all paths of a process before it in this boot,
 * as each may have commands at the target; else those that a login has named.
 */
export function keptPaths(
  paths: RecordPaths,
  { mayHaveGhosts }: { readonly mayHaveGhosts: boolean },
): RecordPaths {
  if (mayHaveGhosts) return paths;
  const named = paths?.filter(({ isSpare }) => !isSpare);
  return named !== undefined && named.length > 1 ? named : undefined;
}

/**
 * The portals of a session: those that the login names, and those where a process before it had
 * sessions. A session that is taken over keeps to the portal that it had.
 */
export function portalsOf(
  wished: readonly PortalAddress[],
  paths: RecordPaths,
  { isTakenOver }: { readonly isTakenOver: boolean },
): { readonly portals: PortalAddress[]; readonly spares: PortalAddress[] } {
  const known = (paths ?? []).filter(({ other }) => other === undefined);
  const before = isTakenOver ? known.slice(0, 1) : [];
  const all = [...before, ...wished, ...known].map(({ host, port }) => ({ host, port }));
  const portals = all.filter((one, at) => at === all.findIndex((other) => samePortal(one, other)));
  const isWished = (portal: PortalAddress) => wished.some((one) => samePortal(one, portal));
  const spares = known.filter((path) => path.isSpare && !isWished(path));
  return { portals, spares: spares.map(({ host, port }) => ({ host, port })) };
}

/** Paths of the record over targets of other names. */
export function otherTargetsOf(paths: RecordPaths): PathPlace[] {
  return (paths ?? []).flatMap(({ host, port, number, isSpare, other }) =>
    other === undefined ? [] : [{ portal: { host, port }, number, isSpare, other }],
  );
}
