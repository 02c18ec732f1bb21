import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { UsageError } from '../base/errors.js';
import type { SessionOptions } from '../config/contract.js';
import { ChallengeMemory } from '../iscsi/login/chap.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import type {
  SessionConfig,
  SessionIdentity,
  SessionType,
} from '../iscsi/session/session-config.js';

export type SessionTarget = {
  readonly type: SessionType;
  readonly targetName?: string;
  readonly portals: readonly PortalAddress[];
  readonly identity: SessionIdentity;
  readonly firstLogin: SessionConfig['firstLogin'];
};

/** Longest wait for the answer to our logout; a target that is gone must not hold us up. */
const LOGOUT_TIMEOUT_MS = 3000;

/**
 * The CHAP challenges of all sessions of this process: one of ours that comes back on any
 * connection is a reflection (RFC 7143 §9.2.1 (CHAP Considerations)).
 */
const CHALLENGES = new ChallengeMemory();

/** The configuration of the protocol session. Throws UsageError 27 for unsupported options. */
export function sessionConfig(target: SessionTarget, options: SessionOptions): SessionConfig {
  if (options.maxConnections !== 1 || options.errorRecoveryLevel !== 0) {
    throw new UsageError(
      'this version has one connection a session and error recovery level 0: ' +
        'set --max-connections 1 and --error-recovery-level 0, or leave them out',
      { exitCode: 27 },
    );
  }
  const seconds = (value: number) => value * 1000;
  return {
    type: target.type,
    portals: target.portals,
    queueDepthMax: options.queueDepthMax,
    firstLogin: target.firstLogin,
    timers: {
      reconnectIntervalMs: seconds(options.reconnectIntervalSeconds),
      loginTimeoutMs: seconds(options.loginTimeoutSeconds),
      noopIntervalMs: seconds(options.noopIntervalSeconds),
      noopTimeoutMs: seconds(options.noopTimeoutSeconds),
      taskTimeoutMs: seconds(options.taskTimeoutSeconds),
      abortTimeoutMs: seconds(options.abortTimeoutSeconds),
      logicalUnitResetTimeoutMs: seconds(options.logicalUnitResetTimeoutSeconds),
      logoutTimeoutMs: LOGOUT_TIMEOUT_MS,
    },
    login: {
      initiatorName: options.initiatorName,
      initiatorAlias: hostname(),
      ...(target.targetName === undefined ? {} : { targetName: target.targetName }),
      ...chapOf(options),
      offer: {
        headerDigest: options.headerDigest,
        dataDigest: options.dataDigest,
        maxConnections: 1,
        initialR2T: options.initialR2T,
        immediateData: options.immediateData,
        maxRecvDataSegmentLength: options.maxRecvDataSegmentLength,
        maxBurstLength: options.maxBurstLength,
        firstBurstLength: Math.min(options.firstBurstLength, options.maxBurstLength),
        maxOutstandingR2T: options.maxOutstandingR2T,
        // Zero lets the target alone say how long to wait: the result is the larger of the two.
        defaultTime2Wait: 0,
        defaultTime2Retain: 20,
        errorRecoveryLevel: 0,
        // With one connection responses are in order anyway, so a fence costs nothing.
        taskReporting: ['ResponseFence', 'RFC3720'],
        protocolLevel: 1,
      },
      randomBytes,
    },
  };
}

function chapOf(options: SessionOptions) {
  const { chap } = options;
  if (chap === undefined) return {};
  const target =
    chap.target === undefined
      ? {}
      : { target: { ...chap.target, secret: Buffer.from(chap.target.secret) } };
  return {
    chap: {
      user: chap.user,
      secret: Buffer.from(chap.secret),
      algorithms: options.chapAlgorithms,
      memory: CHALLENGES,
      ...target,
    },
  };
}
