import type { ProductEvent } from '../config/contract.js';
import type { RpcFault, RpcRequest } from '../control/control-protocol.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import type { DaemonEnvironment, LoginParams } from '../supervisor/resolved-login.js';
import type { ExportPlan } from '../supervisor/session-exports.js';

/**
 * What the main thread and a worker say to each other. No byte of a disk is in any of it: a request
 * of a client is received, sent to the target and answered in one thread.
 *
 * | main → worker | answer | |
 * |---|---|---|
 * | `call` | result | a request of the control socket |
 * | `owns` | boolean | a session or path of this ID is there |
 * | `persist` | record | a persistent login is kept, without a session |
 * | `restore` | | logs in again what these records say |
 * | `usage` | `WorkerUsage` | memory that the worker has |
 * | `close` | | logs out, or leaves, all sessions |
 *
 * | worker → main | answer | |
 * |---|---|---|
 * | `ready` | | the worker can be asked |
 * | `begun`, `over` | | a session is in its table, or is not any more |
 * | `place` | `Placement` | disks were found that are not usable yet |
 * | `event`, `log` | | an event for every client and for the log |
 */

/** What a worker is made with; secrets of the boot LUN are in the surroundings. */
export type WorkerSetup = {
  readonly index: number;
  readonly surroundings: DaemonEnvironment;
  readonly exportPlan: ExportPlan;
  readonly loginsMax: number;
  readonly version: string;
  /** Where retained writes outlive the worker; null without a place. */
  readonly retainedDirectory: string | null;
  /** Processors that the thread keeps to; absent: those of the process. */
  readonly processors?: readonly number[];
  readonly busyPollMicroseconds: number;
  /** Of all workers, a part for each: devices whose disks are removed (`lun/absent-indexes`). */
  readonly absentIndexes: SharedArrayBuffer;
};

/** Bytes of the worker's own heap, and of what its objects have beside it, mostly slabs. */
export type WorkerUsage = { readonly heapBytes: number; readonly externalBytes: number };

/** Where the disks of a session may become usable. */
export type Placement =
  /** A session of that worker has one of them: paths of one disk are in one thread. */
  | { readonly moveTo: number }
  /** These LUNs cannot: sessions of other workers have them. Others seem to be theirs. */
  | { readonly leaveOut: readonly number[]; readonly warnings: readonly string[] };

export type ToWorker =
  | { readonly type: 'call'; readonly request: RpcRequest }
  | { readonly type: 'owns'; readonly sessionId: string }
  | { readonly type: 'persist'; readonly login: LoginParams }
  | { readonly type: 'restore'; readonly keys: readonly string[] }
  | { readonly type: 'usage' }
  | { readonly type: 'close' };

export type LogLevelName = 'info' | 'warn' | 'error';

export type ToMain =
  | { readonly type: 'ready'; readonly threadId: number }
  | { readonly type: 'begun'; readonly key: string }
  | { readonly type: 'over'; readonly key: string }
  | {
      readonly type: 'place';
      readonly key: string;
      readonly targetName: string;
      readonly sessionId: string;
      readonly disks: readonly FoundDisk[];
      /** LUNs that this session had before: they stay. */
      readonly own: readonly number[];
      /** No client uses the session yet. */
      readonly mayMove: boolean;
    }
  | { readonly type: 'event'; readonly event: ProductEvent; readonly target?: string }
  | {
      readonly type: 'log';
      readonly level: LogLevelName;
      readonly facts: Readonly<Record<string, unknown>>;
      readonly message: string;
    };

/** Why something that was asked for is not done. */
export type Refusal =
  /** As it is reported to the client of the control socket. */
  | { readonly fault: RpcFault }
  /** The login belongs into another worker. */
  | { readonly moveTo: number };

/** A message as it is posted; `ask` and `answer` have the number of the question. */
export type Envelope<Body> =
  | { readonly kind: 'tell'; readonly body: Body }
  | { readonly kind: 'ask'; readonly id: number; readonly body: Body }
  | { readonly kind: 'answer'; readonly id: number; readonly result: unknown }
  | { readonly kind: 'refuse'; readonly id: number; readonly refusal: Refusal };
