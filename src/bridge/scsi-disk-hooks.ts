import type { Attention } from '../scsi/sense-table.js';
import type { BlockRequest } from './block-device.js';

/** What a disk asks of and tells those around it. */
export interface ScsiDiskHooks {
  /**
   * False while nothing may be sent, as when the disk's identity is not known to be the same. A
   * command that is due then ends its request as lost.
   */
  maySend(): boolean;
  /** The link went before the answer: the request has to be submitted again. */
  requestLost(request: BlockRequest): void;
  /**
   * The disk said that something has changed, or that it cannot serve; `words` says what. A request
   * has waited for that since `sinceMs`.
   */
  attention(attention: Attention, words: string, sinceMs: number): void;
  /** The disk refused a READ or WRITE of so many bytes, and gets `bytesMax` at most from now on. */
  transfersCut(refusedBytes: number, bytesMax: number): void;
  /** The disk wants fewer commands at a time. */
  congested(): void;
  /**
   * Acknowledged writes are known to be lost and a report is missing, or would have to be if
   * this process ended now; or that is over. Called before anything that follows is answered.
   */
  lossChanged(isUntold: boolean): void;
  /** The first write of this process is about to be acknowledged from a volatile cache. */
  firstWrite(): void;
}
