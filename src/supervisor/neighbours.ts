import { UsageError } from '../base/errors.js';
import type { FoundDisk } from '../lun/disk-probe.js';
import type { DaemonSession } from './daemon-session.js';

/** What the supervisor of one thread has to know of those in others, and they of it. */
export type Neighbours = {
  /** A login of this key is in the table, or not any more; each `begun` has one `over`. */
  readonly begun: (key: string) => void;
  readonly over: (key: string) => void;
  /**
   * Those of the disks that may become usable in this thread. Rejects with OtherThreadError if the
   * session belongs where one of them is used already.
   */
  readonly disksHere: (
    session: DaemonSession,
    found: readonly FoundDisk[],
  ) => Promise<readonly FoundDisk[]>;
};

/** The session has a disk of a session of another thread, and paths of one disk are in one. */
export class OtherThreadError extends UsageError {
  readonly worker: number;

  constructor(worker: number) {
    super(`the session belongs into worker ${worker}, which has a disk of it`, {
      code: 'ERR_OTHER_THREAD',
    });
    this.worker = worker;
  }
}
