import type { ProductEvent, SessionOptions } from '../config/contract.js';
import type { SessionIdentity } from '../iscsi/session/session-config.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import type { LossRecord } from '../lun/loss-record.js';
import type { SessionRetained } from '../lun/session-retained.js';
import type { ResolvedLogin } from './resolved-login.js';
import type { ExportPlan } from './session-exports.js';
import type { SessionRecord } from './session-record.js';

/** What a session has to know of the login it is for; a daemon's has its configuration beside. */
export type SessionPlan = Pick<ResolvedLogin, 'request' | 'initiatorName'>;

export type DaemonSessionOptions<Plan extends SessionPlan = ResolvedLogin> = {
  readonly plan: Plan;
  readonly options: SessionOptions;
  readonly identity: SessionIdentity;
  readonly record: SessionRecord;
  readonly exportPlan: ExportPlan;
  /** `once`: a login that fails ends the session; `forever`: it is tried until logout. */
  readonly firstLogin: 'once' | 'forever';
  /** Disks whose devices wait since a crash: they are taken back before the login. */
  readonly waiting: readonly FoundDisk[];
  /** A daemon before this one had the session until it ended, in this boot of the machine. */
  readonly isLeft: boolean;
  /** It left nothing acknowledged that is not on the disk of the LUN. */
  readonly isClean: (lun: number) => boolean;
  /** A session of this identity that was here in this boot may have commands at the target. */
  readonly mayHaveGhosts: boolean;
  /** The next process has this identity, too, even if this one never logs in. */
  readonly keepsIdentity?: boolean;
  /**
   * Those of the disks that this session makes usable: the others are paths of disks that another
   * session has already.
   */
  readonly ownDisks?: (found: readonly FoundDisk[]) => Promise<FoundDisk[]>;
  readonly onEvent: (event: ProductEvent) => void;
  /** Losses of the session's disks, known before they are reported to their users. */
  readonly losses: LossRecord;
  /** What its LUNs retain over the end of a process; absent: nothing. */
  readonly retained?: SessionRetained | undefined;
  /** Writes the record down before what it says is relied on. */
  readonly saveRecord: (record: SessionRecord) => Promise<void>;
  /** Aborts the opening; after that it does nothing. */
  readonly signal?: AbortSignal;
};
