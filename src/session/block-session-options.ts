import type { RetainedMemory } from '../bridge/retained/retained-memory.js';
import type { SessionOptions } from '../config/contract.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import type { HostClaims } from '../lun/host-claims.js';
import type { LossRecord } from '../lun/loss-record.js';
import type { PathPlace } from './paths/path-places.js';

/** What a stack gets beside its target. */
export type BlockSessionOptions = {
  /** Memory for retained writes that outlives this process; absent: they end with it. */
  readonly retained?: RetainedMemory | undefined;
  readonly options: SessionOptions;
  /** Those of the portals that were not requested by name. */
  readonly spares?: readonly PortalAddress[];
  /** Paths over targets of other names, of which a record tells. */
  readonly others?: readonly PathPlace[];
  /** The sessions over which its disks are reached are others; told before they are used. */
  readonly onPaths?: (places: readonly PathPlace[]) => Promise<void>;
  readonly onClosed?: (how: BlockSessionEnd) => void | Promise<void>;
  /** Where lost writes are written down for a process that comes after this one. */
  readonly losses?: Pick<LossRecord, 'wasLostBefore' | 'changed'> | undefined;
  /** A process before this one may have left commands at the target, over whichever portals. */
  readonly mayHaveGhosts?: boolean;
  /** The first write to a LUN is about to be acknowledged from its volatile cache. */
  readonly onFirstWrite?: (lun: number) => void;
  /** The right to write to the LUNs; without it no claim is made. */
  readonly claims?: HostClaims;
  /** The target says that it has other LUNs now; new ones are the caller's to add. */
  readonly onLunsChanged?: () => void;
};

export type BlockSessionEnd = {
  /** The target has seen the logout: nothing of the session is at work there. */
  readonly isLoggedOut: boolean;
};

/** What outages have cost since the session began. */
export type OutageCounters = {
  /** Times the session was lost. */
  readonly outages: number;
  /** Requests that were held, each time they were. */
  readonly heldRequests: number;
  readonly longestHoldMs: number;
};
