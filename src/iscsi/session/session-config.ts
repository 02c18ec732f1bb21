import type { LoginOptions } from '../login/login.js';
import type { PortalAddress } from '../login/portal.js';

/** RFC 7143 has two session types; `informational`, `data` and `boot` are Normal on the wire. */
export type SessionType = 'discovery' | 'informational' | 'data' | 'boot';

/** What never changes while the session lives: its identity. */
export type SessionIdentity = {
  /** UniqueSessionId: 16 hex digits of a u64. */
  readonly sessionId: string;
  /** 6 bytes (RFC 7143 §11.12.5 (ISID)). */
  readonly isid: Uint8Array;
  /**
   * The portal group of a session whose requests a process before this one may have sent
   * (RFC 7143 §13.9 (TargetPortalGroupTag)): until they have failed no other will do.
   */
  readonly portalGroupTag?: number;
};

/** Timers that may be changed while the session runs; all in milliseconds. */
export type SessionTimers = {
  reconnectIntervalMs: number;
  loginTimeoutMs: number;
  /** 0: off. Read when a connection begins. */
  noopIntervalMs: number;
  noopTimeoutMs: number;
  taskTimeoutMs: number;
  abortTimeoutMs: number;
  logicalUnitResetTimeoutMs: number;
  logoutTimeoutMs: number;
};

export type SessionConfig = {
  readonly type: SessionType;
  readonly portals: readonly PortalAddress[];
  /** What each login offers; the session adds identity and numbers. */
  readonly login: Omit<
    LoginOptions,
    'isid' | 'tsih' | 'cid' | 'initiatorTaskTag' | 'cmdSN' | 'sessionType' | 'quirks'
  >;
  readonly timers: SessionTimers;
  /**
   * Block I/O in flight at most, over all LUNs; the rest waits, in order for each LUN. The shares
   * of LUNs that come while another one has all of it may exceed it by half, because progress
   * matters more: each LUN may have one command in flight whatever the depth. Control commands do
   * not count.
   */
  readonly queueDepthMax: number;
  /**
   * The first login: one round over the portals and then closed, attempts for ever, or `resume`:
   * the session of a process before this one goes on, so it begins as `reconnecting`.
   */
  readonly firstLogin: 'once' | 'forever' | 'resume';
};
