import type { Clock } from '../base/clock.js';
import type { ChapHash } from './chap.js';
import type { TargetDisk } from './disk.js';
import type { Faults } from './faults.js';
import type { NegotiationSettings } from './negotiation.js';

export type ChapSettings = {
  readonly user: string;
  readonly secret: string;
  /** What the target proves itself with when the initiator asks (mutual CHAP). */
  readonly mutual?: { readonly user: string; readonly secret: string };
  /** Algorithms accepted; all four by default. The initiator's order decides. */
  readonly algorithms?: readonly ChapHash[];
};

export type PortalOptions = {
  readonly address: string;
  readonly port: number;
  readonly portalGroupTag: number;
};

export type PortGroup = {
  readonly state:
    | 'optimized'
    | 'nonOptimized'
    | 'standby'
    | 'unavailable'
    | 'offline'
    | 'transitioning';
  /** PREF. */
  readonly isPreferred?: boolean;
};

/** How a target with `portGroups` speaks of them. */
export type PortGroupSettings = {
  /** If the extended header is requested: 05/24, or an answer with the plain one. */
  extendedHeader?: 'refused' | 'ignored';
  /** IMPLICIT TRANSITION TIME; by default 0, which reports none. */
  transitionSeconds?: number;
  /** SET TARGET PORT GROUPS is taken; one group is optimized then, and others are not any more. */
  canBeSet?: boolean;
  /** Units name their port only, and no group of it. */
  isGroupUntold?: boolean;
  /** Changes the parameter data before they are cut to the allocation length. */
  onAnswer?: (data: Buffer) => Buffer;
  /** Told of each of its commands. */
  onAsked?: (cdb: Buffer) => void;
};

/** One target name with its LUNs. The map and the mutable fields may change at any time. */
export type TargetOptions = {
  readonly name: string;
  readonly alias?: string;
  readonly luns: Map<number, TargetDisk>;
  /**
   * What the keys of `luns` are. `numbers` (the default): plain numbers, reported by peripheral
   * device addressing up to 255 and by flat space addressing above, and answered to by either.
   * `fields`: the first two bytes of the LUN field, e.g. 4005h for flat 5, and 5 for peripheral 5;
   * each is reported so and answers to nothing else (SAM-5 §4.7).
   */
  readonly lunKeys?: 'numbers' | 'fields';
  /** Tag of the portal that is connected to, unless `portals` says otherwise; 1 by default. */
  readonly portalGroupTag?: number;
  /** What SendTargets lists; by default the address the initiator connected to. */
  portals?: readonly PortalOptions[];
  /**
   * Asymmetric access (SPC-4 §5.15): the state of each portal group, which is a target port group
   * of one port; absent: all ports are alike and the units do not tell.
   */
  readonly portGroups?: Map<number, PortGroup>;
  readonly portGroupSettings?: PortGroupSettings;
  /** CHAP that this target requires. */
  chap?: ChapSettings | undefined;
  /** Every login is sent elsewhere: status 0101h, or 0102h when permanent. */
  redirect?: { readonly address: string; readonly permanent?: boolean } | undefined;
};

/** LUNs may be given as a plain object by number. */
export type TargetInput = Omit<TargetOptions, 'luns'> & {
  readonly luns: ReadonlyMap<number, TargetDisk> | Readonly<Record<number, TargetDisk>>;
};

/** When a session's LUNs begin with unit attention 29h/00h. */
export type PowerOnAttention = 'never' | 'after-restart' | 'every-login';

export type TargetNodeOptions = {
  readonly targets: readonly TargetInput[];
  readonly negotiation?: Partial<NegotiationSettings>;
  /** CHAP for discovery sessions. */
  readonly discoveryChap?: ChapSettings;
  /** Commands an initiator may have in flight; 128 by default. */
  readonly commandWindow?: number;
  /** StatSN of the first login response of a connection; 1 by default. */
  readonly initialStatSN?: number;
  readonly powerOnAttention?: PowerOnAttention;
  readonly faults?: Faults;
  /** For delays; the socket server gives the real one when none is set. */
  readonly clock?: Clock;
  /** For CHAP challenges; the socket server gives the real one when none is set. */
  readonly randomBytes?: (length: number) => Buffer;
};

export type Peer = { readonly localAddress: string; readonly localPort: number };
