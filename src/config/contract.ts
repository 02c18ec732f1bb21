import type { LunFields } from '../bridge/lun-fields.js';
import type { ReplayReason } from '../bridge/retained/retained-writes.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import type { LunField } from '../scsi/command.js';

/**
 * The types between the commands a person runs and the data path. The commands see the data path
 * only through `Backend`, so each side can be tried without the other.
 */

/** `iscsi://[user[%password]@]host[:port]/<target-name>[/<lun>]`, taken apart. */
export type TargetUrl = {
  /** Name or address; an IPv6 address without its brackets. */
  readonly host: string;
  readonly port: number;
  readonly targetName: string;
  /** `null`: every LUN of the target. */
  readonly lun: number | null;
  readonly user?: string;
  readonly password?: string;
};

export type SessionType = 'data' | 'boot' | 'informational';
export type RetainWrites = 'auto' | 'always' | 'never';
export type DigestName = 'None' | 'CRC32C';
export type ChapAlgorithmName = 'MD5' | 'SHA1' | 'SHA256' | 'SHA3-256';

/** Credentials of one session; `target` asks the target to prove itself too. */
export type ChapCredentials = {
  readonly user: string;
  readonly secret: string;
  readonly target?: { readonly user?: string; readonly secret: string };
};

export type Multipath = 'auto' | 'off';
/** Who changes states of target port groups: the target, we too, or neither (they are ignored). */
export type Alua = 'implicit' | 'explicit' | 'off';
export type PathPolicy = 'least-queue' | 'round-robin' | 'failover';

/** Everything that can be set for a session, defaults applied. Lists are in order of preference. */
export type SessionOptions = {
  readonly initiatorName: string;
  readonly sessionType: SessionType;
  readonly chap?: ChapCredentials;
  readonly chapAlgorithms: readonly ChapAlgorithmName[];
  readonly headerDigest: readonly DigestName[];
  readonly dataDigest: readonly DigestName[];
  /** `Infinity`: held requests wait for ever. */
  readonly removalLatencySeconds: number;
  readonly reconnectIntervalSeconds: number;
  readonly loginTimeoutSeconds: number;
  /** 0: no NOP-Out of our own. */
  readonly noopIntervalSeconds: number;
  readonly noopTimeoutSeconds: number;
  readonly abortTimeoutSeconds: number;
  readonly logicalUnitResetTimeoutSeconds: number;
  readonly taskTimeoutSeconds: number;
  /** Other portals of the same target, tried in turn after the one in the URL. */
  readonly portals: readonly PortalAddress[];
  /** `auto`: each portal is a path of its own to the disks; absent: `off`. */
  readonly multipath?: Multipath;
  /** Sessions, and so paths, to each portal; absent: 1. */
  readonly sessionsPerPortal?: number;
  readonly pathPolicy?: PathPolicy;
  readonly alua?: Alua;
  /** Seconds between two checks of a path that cannot be used. */
  readonly pathCheckSeconds?: number;
  readonly queueDepthMax: number;
  readonly heldBytesMax: number;
  /** Absent: `auto`, writes into a cache that the disk reports are retained. */
  readonly retainWrites?: RetainWrites;
  /** Bytes of acknowledged writes that are retained of each LUN; absent: 64 MiB. */
  readonly retainedBytesMax?: number;
  readonly maxConnections: number;
  readonly errorRecoveryLevel: number;
  readonly initialR2T: boolean;
  readonly immediateData: boolean;
  readonly firstBurstLength: number;
  readonly maxBurstLength: number;
  readonly maxRecvDataSegmentLength: number;
  readonly maxOutstandingR2T: number;
  readonly readOnly: boolean;
  /** LUNs another session of this host may write to are used all the same. */
  readonly shared?: boolean;
  /** A disk without identity is identified, after an outage, by its make and size. */
  readonly allowUnidentified?: boolean;
  /** Only these LUNs; absent: the URL's LUN, or all. */
  readonly luns?: readonly number[];
};

/** What the process has, not a session. */
export type ProcessSettings = {
  /** It keeps to these processors; absent: it does not care. */
  readonly cpuAffinity?: readonly number[];
  /** How long it busy-polls before it sleeps, if that is faster; absent: never. */
  readonly busyPollMicroseconds?: number;
  /** Threads that serve the sessions of a daemon; 0 or absent: they are all served in one. */
  readonly workers?: number | 'auto';
};

export type ServeOptions = SessionOptions & ProcessSettings & { readonly socketPath: string };
export type AttachOptions = SessionOptions &
  ProcessSettings & {
    readonly boot: boolean;
    /** `close` leaves the devices, with their requests, to a process that comes after this one. */
    readonly keepDevices?: boolean;
  };

export type DiscoveredTarget = {
  readonly name: string;
  readonly portals: readonly PortalAddress[];
};

export type ScsiRequest = {
  readonly lun: number;
  /** Absent: the field that the target reported for the number, else the usual one. */
  readonly field?: LunField;
  readonly cdb: Buffer;
  readonly direction: 'none' | 'read';
  /** Bytes expected at most. */
  readonly length: number;
};

/** `data` holds what arrived, `sense` is empty when there was none. */
export type ScsiAnswer = {
  readonly status: number;
  readonly data: Buffer;
  readonly sense: Buffer;
  /** The session is away: this is what was answered last. */
  readonly cached?: true;
};

/** A session that carries commands and never makes a device. */
export interface InformationalSession {
  /** 16 hex digits. */
  readonly sessionId: string;
  /** What its questions learn of the fields of LUNs. */
  readonly lunFields?: LunFields;
  /** Logs in at another portal of the target; false if `tried` others were all there are. */
  readonly otherPortal?: (tried: number) => Promise<boolean>;
  execute(request: ScsiRequest): Promise<ScsiAnswer>;
  /** One NOP-Out with `bytes` of ping data; resolves to the round trip in milliseconds. */
  ping(bytes: number): Promise<number>;
  close(): Promise<void>;
}

export type SessionState =
  | 'loggingIn'
  | 'loggedIn'
  | 'reconnecting'
  | 'removed'
  | 'loggingOut'
  | 'closed';

/** One LUN as a user of it sees it: a kernel device, or an export on a socket. */
export type LunExport = {
  readonly lun: number;
  readonly device?: string;
  readonly socket?: string;
  readonly uri?: string;
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  readonly readOnly: boolean;
};

/** What every event about one LUN says; `device` where the LUN is a kernel device. */
type LunEvent = { readonly lun: number; readonly device?: string };

/** What an event says, without when and of which session. */
export type EventBody =
  | ({ readonly event: 'ready' } & LunExport)
  | {
      readonly event: 'sessionState';
      readonly from: SessionState;
      readonly to: SessionState;
      readonly reason: string;
    }
  | ({ readonly event: 'deviceAttached' } & LunEvent)
  | ({ readonly event: 'deviceHeld'; readonly requests: number; readonly bytes: number } & LunEvent)
  | ({ readonly event: 'deviceReleased' } & LunEvent)
  /** Acknowledged writes that were not flushed are on the medium now. */
  | ({
      readonly event: 'writesReplayed';
      readonly requests: number;
      readonly bytes: number;
      readonly milliseconds: number;
      readonly reason: ReplayReason;
    } & LunEvent)
  | ({ readonly event: 'deviceRemoved'; readonly reason: string } & LunEvent)
  /** It cannot be removed, or come back, while `holders` use it. */
  | ({ readonly event: 'deviceInUse'; readonly holders: string } & LunEvent)
  | ({ readonly event: 'deviceResized'; readonly sizeBytes: number } & LunEvent)
  /** A path of a disk that has several: `down`, or the state in which its port is. */
  | {
      readonly event: 'pathState';
      readonly lun: number;
      readonly portal: string;
      /** Name of the target that the path goes to, if it is not that of the session. */
      readonly target?: string;
      readonly from: string;
      readonly to: string;
      readonly reason: string;
    }
  /** Commands take another path now. */
  | {
      readonly event: 'pathSwitched';
      readonly lun: number;
      readonly from: string;
      readonly to: string;
      readonly reason: string;
    }
  | { readonly event: 'portalChanged'; readonly from: string; readonly to: string }
  | {
      readonly event: 'loginRefused';
      readonly statusClass: number;
      readonly statusDetail: number;
      readonly explanation: string;
    }
  | ({
      readonly event: 'ioError';
      readonly operation: string;
      readonly offsetBytes: number;
      readonly lengthBytes: number;
      readonly errno: string;
      readonly reason: string;
    } & LunEvent)
  /** The target does something against the RFC that the session lives with; once for each. */
  | {
      readonly event: 'targetQuirk';
      /** Name of the quirk, the same for all targets that have it. */
      readonly quirk: string;
      /** Section of RFC 7143. */
      readonly section: string;
      readonly what: string;
    }
  /** Something works less well than it could, and why. */
  | { readonly event: 'warning'; readonly message: string }
  | { readonly event: 'closed'; readonly reason: string };

/** `time` is RFC 3339 in UTC. */
export type ProductEvent = EventBody & { readonly time: string; readonly sessionId: string };

export type SessionHooks = {
  /** Told of everything but `ready`, which the caller makes from `Stack.exports`. */
  onEvent(event: ProductEvent): void;
  /** Aborts the way to readiness; after that `Stack.close` is the way out. */
  readonly signal: AbortSignal;
};

/** One session with its exports, ready for use. */
export interface OpenSession {
  readonly sessionId: string;
  readonly exports: readonly LunExport[];
  /** May be called again; with `force` nothing is waited for. */
  close(options?: { readonly force?: boolean }): Promise<void>;
  /** Settles when everything is gone; rejects when that was not asked for. */
  readonly closed: Promise<void>;
}

/** How a LUN is booted and judged; the disk it becomes is the first one of the machine. */
export type BootTestOptions = SessionOptions & {
  /** Boot the LUN itself, and not an overlay that is thrown away. */
  readonly write: boolean;
  /** Passed when a line of the serial console matches. */
  readonly expect: RegExp;
  /** Failed when a line matches before. */
  readonly fail: RegExp;
  readonly timeoutSeconds: number;
  readonly firmware: 'bios' | 'uefi';
  readonly accelerator: 'auto' | 'kvm' | 'tcg';
  readonly disk: 'virtio' | 'scsi' | 'sata';
  readonly network: 'none' | 'user';
  readonly memoryMiB: number;
  readonly cpus: number;
  /** A name QEMU knows; default: all this machine, or QEMU itself, can. */
  readonly cpuModel?: string;
  /** Where a picture of the screen goes at the end. */
  readonly screenshotPath?: string;
  /** Where the overlay is made and left; nothing may be there. */
  readonly keepOverlayPath?: string;
  /** As in `PATH`: where QEMU is searched. */
  readonly searchPath: string;
};

/** The machine that boots. */
export type BootMachineFacts = {
  readonly accelerator: 'kvm' | 'tcg';
  readonly qemuVersion: string;
};

export type BootReason =
  | 'expected'
  | 'failPattern'
  /** The guest told the machine that its kernel has panicked. */
  | 'panicked'
  | 'shutdown'
  /** It starts over and over again. */
  | 'resets'
  | 'qemuEnded'
  | 'timeout';

export type BootVerdict = {
  readonly passed: boolean;
  readonly reason: BootReason;
  /** The line of the console that decided, or QEMU's own words; absent if neither exists. */
  readonly line?: string;
  readonly elapsedMs: number;
  /** Times the guest started again. */
  readonly resets: number;
  /** What the console said last, oldest first. */
  readonly lastLines: readonly string[];
};

export type BootTestHooks = SessionHooks & {
  /** The LUN exists. */
  onReady(stack: OpenSession): void;
  onStarted(machine: BootMachineFacts): void;
  /** Lines of the serial console that have ended, and the beginning of the next. */
  onConsole(lines: readonly string[], unfinished: string): void;
  /** Something beside the verdict did not work. */
  onWarning(message: string): void;
};

export type CheckHooks = {
  /** Ends the check; its session is logged out. */
  readonly signal: AbortSignal;
  /** Told of what is being done now. */
  onStep(what: string): void;
};

export type DemoHooks = {
  log(line: string): void;
  readonly json: boolean;
  readonly signal: AbortSignal;
};

/** The data path as the commands use it. */
export interface Backend {
  discover(
    portal: { readonly host: string; readonly port: number },
    options: SessionOptions,
    signal: AbortSignal,
    /** Told what is left out of the list and what is odd about the target. */
    warn: (message: string) => void,
  ): Promise<readonly DiscoveredTarget[]>;
  openInformational(
    url: TargetUrl,
    options: SessionOptions,
    signal: AbortSignal,
    /** Told what is odd about the target. */
    warn: (message: string) => void,
  ): Promise<InformationalSession>;
  serve(url: TargetUrl, options: ServeOptions, hooks: SessionHooks): Promise<OpenSession>;
  attach(url: TargetUrl, options: AttachOptions, hooks: SessionHooks): Promise<OpenSession>;
  /** Boots the URL's LUN in QEMU and judges it by its console; nothing is left behind. */
  bootTest(url: TargetUrl, options: BootTestOptions, hooks: BootTestHooks): Promise<BootVerdict>;
  runDemo(hooks: DemoHooks): Promise<void>;
  /** What a target is and does, found out without a write; the report has the schema of `check`. */
  check(url: TargetUrl, options: SessionOptions, hooks: CheckHooks): Promise<unknown>;
}
