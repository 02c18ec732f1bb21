import type { BlockRequest } from './block-device.js';

/** What a failed request was, for events. */
export type IoError = {
  readonly operation: string;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly errno: string;
  readonly reason: string;
};

/**
 * Reports failed requests without flooding: the first of a disk, then each time their number has
 * doubled. What the client did wrong itself (EINVAL) or asked for on trial (ENOTSUP) does not
 * count as a failure of the disk.
 */
export class IoErrorReporter {
  readonly #tell: (error: IoError) => void;
  /** Failed requests so far. */
  count = 0;

  constructor(tell: (error: IoError) => void) {
    this.#tell = tell;
  }

  failed(request: BlockRequest): void {
    const { errno, operation, offsetBytes, lengthBytes } = request;
    if (errno === null || errno === 'EINVAL' || errno === 'ENOTSUP') return;
    this.count += 1;
    if ((this.count & (this.count - 1)) !== 0) return;
    const times = this.count === 1 ? '' : ` (error ${this.count} of this disk)`;
    const reason = `${request.reason}${times}`;
    this.#tell({ operation, offsetBytes, lengthBytes, errno, reason });
  }
}
