import { InvariantError } from '../base/errors.js';
import { SLAB_BYTES, type SlabPool } from '../base/slab.js';
import { SlabWriter } from '../base/slab-writer.js';
import {
  unmapParameterList,
  writeGetLbaStatusCdb,
  writeReadCdb,
  writeSynchronizeCacheCdb,
  writeUnmapCdb,
  writeWriteCdb,
  writeWriteSame16Cdb,
} from '../scsi/cdb.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { Opcode } from '../scsi/opcodes.js';
import type { BlockRequest } from './block-device.js';
import type { DiskCommand } from './disk-command.js';
import { halfOf, transferBytesMax, trimBytesMax, writeSameBytesMax } from './request-limits.js';

/** Answer bytes of one GET LBA STATUS: 8 and 16 for each of 64 extents. */
const LBA_STATUS_BYTES = 8 + 16 * 64;

/** Turns parts of block requests into SCSI commands (SBC-3). */
export class CommandBuilder {
  readonly #pool: SlabPool;
  readonly #writer: SlabWriter;
  /** A slab of zeros, made when it is needed first. */
  #zeros = -1;
  /** The disk does not know WRITE SAME(16), or not as we use it: zeros are written as data. */
  #writeSameRefused = false;
  /** Bytes of one READ or WRITE that the disk has not refused for its length. */
  #transferBytesMax = Number.POSITIVE_INFINITY;

  constructor(pool: SlabPool) {
    this.#pool = pool;
    this.#writer = new SlabWriter(pool);
  }

  /** True if write zeroes only unmaps blocks, which is quick on any disk. */
  zeroesFast(request: BlockRequest, { thin }: DiskFacts): boolean {
    const unmaps = !request.noHole && thin.writeSame16Unmap && thin.readsZero;
    return unmaps && !this.#writeSameRefused;
  }

  /**
   * The disk has refused a command like this one, and gets no such command any more. Returns the
   * bytes of one READ or WRITE at most from now on, null where that has not changed.
   */
  refused({ scsi, lengthBytes }: DiskCommand, { blockSizeBytes }: DiskFacts): number | null {
    if (scsi.cdb[0] === Opcode.writeSame16) {
      this.#writeSameRefused = true;
      return null;
    }
    const half = halfOf(lengthBytes, blockSizeBytes);
    if (half >= this.#transferBytesMax) return null;
    this.#transferBytesMax = half;
    return half;
  }

  /** Bytes one command for this request moves or names at most. */
  partBytesMax(request: BlockRequest, facts: DiskFacts): number {
    switch (request.operation) {
      case 'read':
      case 'write':
        return Math.min(transferBytesMax(facts), this.#transferBytesMax);
      case 'trim':
        return trimBytesMax(facts);
      case 'writeZeroes':
        if (this.#writeSameRefused) return this.#zerosBytesMax(facts);
        return writeSameBytesMax(facts);
      default:
        return request.lengthBytes;
    }
  }

  /** Prepares the command for its part, given by `startBytes` and `lengthBytes`. */
  part(command: DiskCommand, request: BlockRequest, facts: DiskFacts): void {
    const { scsi, startBytes, lengthBytes } = command;
    const lba = (request.offsetBytes + startBytes) / facts.blockSizeBytes;
    const blockCount = lengthBytes / facts.blockSizeBytes;
    switch (request.operation) {
      case 'read':
        scsi.dataIn = lengthBytes === request.lengthBytes ? request.data : command.ownDataIn;
        scsi.prepare('read', lengthBytes);
        writeReadCdb(scsi.cdb, lba, blockCount, false);
        return;
      case 'write':
        scsi.prepare('write', lengthBytes);
        writeWriteCdb(scsi.cdb, lba, blockCount, request.fua && facts.dpoFua);
        scsi.dataOut = request.data;
        scsi.dataOutStart = startBytes;
        return;
      case 'trim':
        if (facts.thin.unmap) this.#unmap(command, lba, blockCount);
        else this.#writeSame(command, lba, { blockCount, unmap: true, facts });
        return;
      case 'writeZeroes':
        if (this.#writeSameRefused) {
          this.#writeZeros(command, lba, blockCount);
          return;
        }
        this.#writeSame(command, lba, {
          blockCount,
          unmap: this.zeroesFast(request, facts),
          facts,
        });
        return;
      case 'blockStatus':
        scsi.dataIn = command.ownDataIn;
        scsi.prepare('read', LBA_STATUS_BYTES);
        writeGetLbaStatusCdb(scsi.cdb, lba, LBA_STATUS_BYTES);
        return;
      case 'flush':
        throw new InvariantError('a flush has no parts');
    }
  }

  /** Zeros that are data come from one slab. */
  #zerosBytesMax(facts: DiskFacts): number {
    return Math.min(SLAB_BYTES, transferBytesMax(facts), this.#transferBytesMax);
  }

  /** The whole medium; 0 blocks from block 0 mean that. */
  flush(command: DiskCommand): void {
    command.scsi.prepare('none', 0);
    writeSynchronizeCacheCdb(command.scsi.cdb, 0, 0);
  }

  /** Lets go of its memory. Commands under way keep what they use. */
  close(): void {
    this.#writer.close();
    if (this.#zeros >= 0) this.#pool.release(this.#zeros);
    this.#zeros = -1;
  }

  #unmap(command: DiskCommand, lba: number, blockCount: number): void {
    const list = unmapParameterList([{ lba, blockCount }]);
    command.parameters.clear();
    this.#writer.write(list, command.parameters);
    command.scsi.prepare('write', list.length);
    writeUnmapCdb(command.scsi.cdb, list.length);
    command.scsi.dataOut = command.parameters;
  }

  #writeSame(
    command: DiskCommand,
    lba: number,
    how: { readonly blockCount: number; readonly unmap: boolean; readonly facts: DiskFacts },
  ): void {
    const { blockSizeBytes } = how.facts;
    command.parameters.clear();
    command.parameters.append(this.#zeroSlab(), 0, blockSizeBytes);
    command.scsi.prepare('write', blockSizeBytes);
    const options = { unmap: how.unmap, noDataOut: false };
    writeWriteSame16Cdb(command.scsi.cdb, lba, how.blockCount, options);
    command.scsi.dataOut = command.parameters;
  }

  #writeZeros(command: DiskCommand, lba: number, blockCount: number): void {
    command.parameters.clear();
    command.parameters.append(this.#zeroSlab(), 0, command.lengthBytes);
    command.scsi.prepare('write', command.lengthBytes);
    writeWriteCdb(command.scsi.cdb, lba, blockCount, false);
    command.scsi.dataOut = command.parameters;
  }

  #zeroSlab(): number {
    if (this.#zeros < 0) {
      this.#zeros = this.#pool.acquire();
      this.#pool.buffer(this.#zeros).fill(0);
    }
    return this.#zeros;
  }
}
