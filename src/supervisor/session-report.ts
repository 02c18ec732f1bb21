import * as z from 'zod';
import type { LunExport } from '../config/contract.js';
import type { Connection } from '../iscsi/connection/connection.js';
import { nextStepOf } from '../iscsi/quirks/quirks.js';
import type { LunLifecycle } from '../lun/lun-lifecycle.js';
import { LUN_STATES } from '../lun/lun-state.js';
import type { DaemonSession } from './daemon-session.js';
import { liveValues, settingsOf } from './live-options.js';
import { pathSchema, viewPaths } from './path-report.js';

/**
 * The daemon's report of its sessions. Names that begin with a capital are those of Microsoft's
 * WMI classes MSiSCSI_InitiatorSessionInfo, ISCSI_SessionStaticInfo and ISCSI_ConnectionStaticInfo;
 * numbers above 2^53 are 16 hex digits. The others are ours. The schemas are the promise to
 * programs; docs/json-schema is made of them.
 */

const id = z.string().regex(/^[0-9a-f]{16}$/);
const count = z.number().int().min(0);
/** Bytes of a disk: whole blocks, so exact beyond 2^53, where zod's own integers end. */
export const diskBytes = z.number().min(0).refine(Number.isInteger).meta({ type: 'integer' });
const settingSchema = z.object({
  option: z.string(),
  value: z.unknown(),
  applies: z.enum(['now', 'nextAttempt', 'nextReconnect', 'nextLogin']),
});
const stateSchema = z.enum([
  'loggingIn',
  'loggedIn',
  'reconnecting',
  'removed',
  'loggingOut',
  'closed',
]);

const connectionSchema = z.object({
  UniqueConnectionId: id,
  CID: count,
  /** Its state in RFC 7143 §8.1.3 (Standard Connection State Diagram for an Initiator). */
  State: count,
  /** 1: TCP. */
  Protocol: z.literal(1),
  /** 0: none, 1: CRC32C. */
  HeaderIntegrity: z.literal([0, 1]),
  DataIntegrity: z.literal([0, 1]),
  /** Bytes of a data segment we may send. */
  MaxRecvDataSegmentLength: count,
  /** 0: none, 1: CHAP, 2: mutual CHAP. */
  AuthType: z.literal([0, 1, 2]),
  /** Our side, as the system chose it; null when the link went this very moment. */
  LocalAddr: z.string().nullable(),
  LocalPort: count.nullable(),
  RemoteAddr: z.string(),
  RemotePort: count,
  /** Bytes a second in both directions, over the last ten to twenty seconds. */
  EstimatedThroughput: count,
  /** 0: TCP has none. */
  MaxDatagramSize: z.literal(0),
});

/** What tells the disk from others; a device is never that of another disk. */
const identitySchema = z.object({
  vendor: z.string(),
  product: z.string(),
  /** VPD page 80h; empty without one. */
  serial: z.string(),
  /** Names of the logical unit from VPD page 83h, the most unique first. */
  identifiers: z.array(z.string()),
  deviceType: count,
  /** Parts that the disk has and could not tell. */
  unread: z.array(z.string()),
});

/** What a LUN is doing. */
const lunStatusFields = {
  lun: count,
  /** Null while it is not there. */
  device: z.string().nullable(),
  lunState: z.enum(LUN_STATES),
  /** Until held requests fail and the device is removed; null while that is not due. */
  removalInSeconds: z.number().min(0).nullable(),
  /** Why it does not serve; null while it does. */
  lastError: z.string().nullable(),
  /** Acknowledged writes that no flush covers: bytes, age of the oldest, times written again. */
  retainedBytes: count,
  retainedAgeSeconds: z.number().min(0),
  replays: count,
};

export const deviceSchema = z.object({
  UniqueSessionId: id,
  TargetiSCSIName: z.string(),
  ...lunStatusFields,
  socket: z.string().nullable(),
  uri: z.string().nullable(),
  sizeBytes: diskBytes,
  blockSizeBytes: count,
  readOnly: z.boolean(),
  identity: identitySchema,
  state: stateSchema,
  heldRequests: count,
  heldBytes: count,
});

export const sessionSchema = z.object({
  UniqueSessionId: id,
  InitiatoriSCSIName: z.string(),
  TargetiSCSIName: z.string(),
  TSID: count,
  ISID: z.string().regex(/^[0-9a-f]{12}$/),
  InitialR2t: z.boolean(),
  ImmediateData: z.boolean(),
  /** 1: informational, 2: data, 3: boot. */
  Type: z.literal([1, 2, 3]),
  DataSequenceInOrder: z.boolean(),
  DataPduInOrder: z.boolean(),
  ErrorRecoveryLevel: count,
  MaxOutstandingR2t: count,
  FirstBurstLength: count,
  MaxBurstLength: count,
  MaxConnections: count,
  ConnectionCount: count,
  ConnectionsList: z.array(connectionSchema),
  state: stateSchema,
  persistent: z.boolean(),
  portal: z.object({ host: z.string(), port: count }),
  portals: z.array(z.object({ host: z.string(), port: count })),
  keys: z.array(
    z.object({
      key: z.string(),
      offered: z.string().nullable(),
      declaredByTarget: z.string().nullable(),
      inForce: z.string(),
    }),
  ),
  /** What the target does against RFC 7143 and the session lives with. */
  quirks: z.array(
    z.object({
      quirk: z.string(),
      /** Section of RFC 7143. */
      section: z.string(),
      what: z.string(),
      nextStep: z.string(),
    }),
  ),
  /** What `set` can change, in seconds, bytes or commands. */
  options: z.record(z.string(), z.union([z.number().min(0), z.literal('never')])),
  /** Every option of the session, and when another value would count. */
  settings: z.array(settingSchema),
  /** Until the first device is removed; null while that is not due. */
  removalInSeconds: z.number().min(0).nullable(),
  heldRequests: count,
  heldBytes: count,
  outages: count,
  longestHoldMs: z.number().min(0),
  attempts: count,
  logins: count,
  /** Why the last attempt failed or the link was lost; null while all is well. */
  lastError: z.string().nullable(),
  /** Until the next login attempt; null while one is under way or none is wanted. */
  nextAttemptInSeconds: z.number().min(0).nullable(),
  devices: z.array(deviceSchema),
  worker: count.optional(),
  /** Of disks that have several. */
  paths: z.array(pathSchema),
});

export const statisticsSchema = z.object({
  UniqueSessionId: id,
  TargetiSCSIName: z.string(),
  BytesSent: count,
  BytesReceived: count,
  PDUCommandsSent: count,
  PDUResponsesReceived: count,
  DigestErrors: count,
  ConnectionTimeoutErrors: count,
  FormatErrors: count,
  LoginAcceptRsps: count,
  LoginOtherFailRsps: count,
  LoginAuthFailRsps: count,
  LoginNegotiateFails: count,
  LoginFailures: count,
  LogoutNormals: count,
  LogoutOtherCodes: count,
  /** Milliseconds. */
  MaximumProcessingTime: z.number().min(0),
  AverageProcessingTime: z.number().min(0),
  /** Of the last ten to twenty seconds. */
  p50Ms: z.number().min(0),
  p99Ms: z.number().min(0),
  commandsInFlight: count,
  commandsWaiting: count,
  heldRequests: count,
  heldBytes: count,
  state: stateSchema,
  removalInSeconds: z.number().min(0).nullable(),
  luns: z.array(z.object(lunStatusFields)),
  /** Of disks that have several. */
  paths: z.array(pathSchema),
  /** Its worker, if there are workers, and how busy that is: 1 is one processor. */
  worker: count.optional(),
  workerLoad: z.number().min(0).optional(),
  /** Monotonic instant of the reading, for rates. */
  atMs: z.number(),
});

export type SessionView = z.output<typeof sessionSchema>;
export type DeviceView = z.output<typeof deviceSchema>;
export type StatisticsView = z.output<typeof statisticsSchema>;
export type LunStatus = StatisticsView['luns'][number];

const TYPE_NUMBERS = { informational: 1, data: 2, boot: 3 } as const;

export function viewSession(session: DaemonSession, nowMs: number): SessionView {
  const machine = session.stack.handle.session;
  const { connection, keys } = machine;
  const inForce = (key: string) => keys.find((row) => row.key === key)?.inForce;
  const number = (key: string, initial: number) => Number(inForce(key) ?? initial);
  const boolean = (key: string) => (inForce(key) ?? 'Yes') === 'Yes';
  const isConnected = connection?.parameters != null;
  const { host, port } = machine.portal ?? machine.portals.current;
  return {
    UniqueSessionId: session.sessionId,
    InitiatoriSCSIName: session.plan.initiatorName,
    TargetiSCSIName: session.plan.request.targetName,
    TSID: machine.tsih,
    ISID: Buffer.from(machine.identity.isid).toString('hex'),
    InitialR2t: boolean('InitialR2T'),
    ImmediateData: boolean('ImmediateData'),
    Type: TYPE_NUMBERS[session.plan.request.sessionType],
    DataSequenceInOrder: boolean('DataSequenceInOrder'),
    DataPduInOrder: boolean('DataPDUInOrder'),
    ErrorRecoveryLevel: number('ErrorRecoveryLevel', 0),
    MaxOutstandingR2t: number('MaxOutstandingR2T', 1),
    FirstBurstLength: number('FirstBurstLength', 65_536),
    MaxBurstLength: number('MaxBurstLength', 262_144),
    MaxConnections: number('MaxConnections', 1),
    ConnectionCount: isConnected ? 1 : 0,
    ConnectionsList: isConnected ? [viewConnection(session, connection, nowMs)] : [],
    state: session.state,
    persistent: session.record.persistent,
    portal: { host, port },
    portals: machine.portals.all.map((portal) => ({ host: portal.host, port: portal.port })),
    keys: keys.map((row) => ({ ...row })),
    quirks: machine.quirks.all.map((row) => ({ ...row, nextStep: nextStepOf(row.quirk) })),
    options: liveValues(session),
    settings: settingsOf(session),
    removalInSeconds: removalInSeconds(session, nowMs),
    ...heldBy(session),
    outages: session.stack.counters.outages,
    longestHoldMs: session.stack.counters.longestHoldMs,
    attempts: machine.attempts,
    logins: machine.logins,
    lastError: session.statistics.lastError,
    nextAttemptInSeconds: secondsUntil(machine.attemptAtMs, nowMs),
    devices: viewDevices(session, nowMs),
    paths: viewPaths(session),
  };
}

/** Every LUN of the session, those that have been removed included. */
export function viewDevices(session: DaemonSession, nowMs: number): DeviceView[] {
  return session.luns.map((lun) => {
    const { queue } = lun.unit;
    const place = exportOf(session, lun);
    return {
      UniqueSessionId: session.sessionId,
      TargetiSCSIName: session.plan.request.targetName,
      ...viewLun(session, lun, nowMs),
      socket: place?.socket ?? null,
      uri: place?.uri ?? null,
      sizeBytes: queue.sizeBytes,
      blockSizeBytes: queue.blockSizeBytes,
      readOnly: queue.readOnly,
      identity: viewIdentity(lun),
      state: session.state,
      heldRequests: queue.heldRequests,
      heldBytes: queue.heldBytes,
    };
  });
}

function viewLun(session: DaemonSession, lun: LunLifecycle, nowMs: number): LunStatus {
  return {
    lun: lun.unit.lun,
    device: exportOf(session, lun)?.device ?? null,
    lunState: lun.state,
    removalInSeconds: secondsUntil(lun.removalAtMs, nowMs),
    lastError: lun.lastError,
    ...viewRetained(lun),
  };
}

function viewIdentity({ unit }: LunLifecycle): DeviceView['identity'] {
  const { vendor, product, serial, identifiers, deviceType, unread } = unit.disk.facts;
  return {
    ...{ vendor, product, serial, deviceType },
    identifiers: [...identifiers],
    unread: [...(unread ?? [])],
  };
}

function viewRetained({ unit: { retained } }: LunLifecycle) {
  return {
    retainedBytes: retained?.bytes ?? 0,
    retainedAgeSeconds: (retained?.ageMs ?? 0) / 1000,
    replays: retained?.replays ?? 0,
  };
}

/** How its users reach it; undefined while it is removed. */
function exportOf(session: DaemonSession, { unit }: LunLifecycle): LunExport | undefined {
  return session.exports.find(({ lun }) => lun === unit.lun);
}

export function viewStatistics(session: DaemonSession, nowMs: number): StatisticsView {
  const { statistics } = session;
  const { initiator, session: machine } = session.stack.handle;
  const { latency } = initiator;
  const { p50Ms, p99Ms } = statistics.recent(nowMs);
  return {
    UniqueSessionId: session.sessionId,
    TargetiSCSIName: session.plan.request.targetName,
    BytesSent: initiator.bytesSentTotal,
    BytesReceived: initiator.bytesReceivedTotal,
    PDUCommandsSent: Math.max(0, initiator.commandsSubmitted - machine.flow.waitingCount),
    PDUResponsesReceived: latency.count,
    DigestErrors: statistics.digestErrors,
    ConnectionTimeoutErrors: statistics.connectionTimeoutErrors,
    FormatErrors: statistics.formatErrors,
    LoginAcceptRsps: statistics.loginAcceptRsps,
    LoginOtherFailRsps: statistics.loginOtherFailRsps,
    LoginAuthFailRsps: statistics.loginAuthFailRsps,
    LoginNegotiateFails: statistics.loginNegotiateFails,
    LoginFailures: statistics.loginFailures,
    LogoutNormals: statistics.logoutNormals,
    LogoutOtherCodes: statistics.logoutOtherCodes,
    MaximumProcessingTime: latency.maximumMs,
    AverageProcessingTime: latency.count === 0 ? 0 : latency.totalMs / latency.count,
    p50Ms,
    p99Ms,
    commandsInFlight: machine.commandsInFlight,
    commandsWaiting: machine.flow.waitingCount,
    ...heldBy(session),
    state: session.state,
    removalInSeconds: removalInSeconds(session, nowMs),
    luns: session.luns.map((lun) => viewLun(session, lun, nowMs)),
    paths: viewPaths(session),
    atMs: nowMs,
  };
}

function viewConnection(
  session: DaemonSession,
  connection: Connection,
  nowMs: number,
): SessionView['ConnectionsList'][number] {
  const addresses = session.stack.handle.initiator.linkAddresses();
  const machine = session.stack.handle.session;
  const { parameters, state } = connection;
  const { host, port } = machine.portals.current;
  const { chap } = session.options;
  const integrity = (digest: string | undefined) => (digest === 'CRC32C' ? 1 : 0);
  // One connection a login: the session's number plus that of the login is unique enough.
  const number = BigInt.asUintN(64, BigInt(`0x${session.sessionId}`) + BigInt(machine.logins));
  return {
    UniqueConnectionId: number.toString(16).padStart(16, '0'),
    CID: 0,
    State: Number(state.slice(1, 2)),
    Protocol: 1,
    HeaderIntegrity: integrity(parameters?.headerDigest),
    DataIntegrity: integrity(parameters?.dataDigest),
    MaxRecvDataSegmentLength: parameters?.targetMaxRecvDataSegmentLength ?? 0,
    AuthType: chap === undefined ? 0 : chap.target === undefined ? 1 : 2,
    LocalAddr: addresses?.local.host ?? null,
    LocalPort: addresses?.local.port ?? null,
    RemoteAddr: addresses?.remote.host ?? host,
    RemotePort: port,
    EstimatedThroughput: session.statistics.recent(nowMs).bytesPerSecond,
    MaxDatagramSize: 0,
  };
}

function removalInSeconds(session: DaemonSession, nowMs: number): number | null {
  const ofLuns = session.luns.map(({ removalAtMs }) => removalAtMs);
  return secondsUntil(Math.min(session.stack.handle.removalAtMs, ...ofLuns), nowMs);
}

function secondsUntil(atMs: number, nowMs: number): number | null {
  if (!Number.isFinite(atMs)) return null;
  return Math.max(0, Math.round((atMs - nowMs) / 100) / 10);
}

function heldBy(session: DaemonSession): { heldRequests: number; heldBytes: number } {
  const queues = session.stack.units.map((unit) => unit.queue);
  return {
    heldRequests: queues.reduce((sum, queue) => sum + queue.heldRequests, 0),
    heldBytes: queues.reduce((sum, queue) => sum + queue.heldBytes, 0),
  };
}
