import type { BlockRequest } from './block-device.js';
import type { DiskCommand } from './disk-command.js';

/** The commands of reads in more than one part, until their data is joined or dropped. */
export class ReadParts {
  readonly #parts = new Map<BlockRequest, DiskCommand[]>();

  /** True when there is a read in parts at all. */
  get isAny(): boolean {
    return this.#parts.size > 0;
  }

  /** One more part, in the order of the disk. */
  add(request: BlockRequest, command: DiskCommand): void {
    const parts = this.#parts.get(request);
    if (parts === undefined) this.#parts.set(request, [command]);
    else parts.push(command);
  }

  /**
   * All parts are back: their data is put together where the read has succeeded. Returns the
   * commands, which may be used again.
   */
  end(request: BlockRequest): readonly DiskCommand[] {
    const parts = this.#parts.get(request);
    if (parts === undefined) return [];
    this.#parts.delete(request);
    if (request.errno !== null || request.wasLost) return parts;
    for (const { scsi } of parts) {
      request.data.appendSlice(scsi.dataIn, 0, scsi.dataIn.byteLength);
    }
    return parts;
  }
}
