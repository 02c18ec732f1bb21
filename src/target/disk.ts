import { createHash } from 'node:crypto';
import { invariant } from '../base/errors.js';
import { type DiskStore, RamStore } from './disk-store.js';

/** What the disk says of its limits in the Block Limits page (SBC-4 §6.6.4); 0 is "not said". */
type TargetDiskLimits = {
  /** MAXIMUM TRANSFER LENGTH in blocks; longer transfers are refused. */
  transferBlocksMax: number;
  optimalTransferBlocks: number;
  unmapBlocksMax: number;
  unmapDescriptorsMax: number;
  unmapGranularityBlocks: number;
  unmapAlignmentBlocks: number;
  writeSameBlocksMax: number;
};

export type TargetDiskOptions = {
  readonly blockSizeBytes?: 512 | 4096;
  /** Empty: the disk has no page 80h and no T10 designator. */
  readonly serial?: string;
  readonly vendor?: string;
  readonly product?: string;
  readonly revision?: string;
  /** NAA identifier of VPD page 83h in hexadecimal digits (8 or 16 bytes); empty: it has none. */
  readonly naa?: string;
  readonly readOnly?: boolean;
  /** `volatile`: an unflushed write is lost by `powerLoss`, and WCE is 1. */
  readonly writeCache?: 'none' | 'volatile';
  /** False: no caching mode page. */
  readonly cachingPage?: boolean;
  /** False: CMDQUE is 0, one untagged command at a time. */
  readonly commandQueuing?: boolean;
  /** INQUIRY has an allocation length of one byte, as in SCSI-2: only byte 4 is read. */
  readonly shortAllocationLength?: boolean;
  /** False: no UNMAP, no WRITE SAME with UNMAP, no GET LBA STATUS, LBPME is 0. */
  readonly thin?: boolean;
  readonly senseFormat?: 'fixed' | 'descriptor';
  readonly limits?: Partial<TargetDiskLimits>;
};

/** The longest READ or WRITE: each holds its bytes in one buffer. Told in the Block Limits page. */
export const TRANSFER_BYTES_MAX = 256 << 20;
/** The longest WRITE SAME, so that one command does not fill the memory. */
const WRITE_SAME_BYTES_MAX = 1 << 30;

/** A disk behind a LUN. Tests change its public fields; sessions notice by unit attention. */
export class TargetDisk {
  readonly blockSizeBytes: number;
  serial: string;
  vendor: string;
  product: string;
  revision: string;
  naa: string;
  readOnly: boolean;
  writeCacheEnabled: boolean;
  thin: boolean;
  readonly cachingPage: boolean;
  readonly commandQueuing: boolean;
  readonly shortAllocationLength: boolean;
  senseFormat: 'fixed' | 'descriptor';
  /** PERIPHERAL QUALIFIER of INQUIRY; 1: a device may be there, and none is now. */
  peripheralQualifier = 0;
  /** What READ CAPACITY says in place of `blockSizeBytes`, as disks with protection data do. */
  reportedBlockSizeBytes: number | null = null;
  /** False: changes raise no unit attention, as with LIO. */
  announcesChanges = true;
  readonly limits: TargetDiskLimits;
  readonly #store: DiskStore;
  /**
   * The volatile cache, seen from behind: the durable content of every block written since it was
   * last made durable; `null` for an unmapped one. Reads and writes then need no detour.
   */
  readonly #durable = new Map<number, Buffer | null>();

  constructor(store: DiskStore, options: TargetDiskOptions = {}) {
    this.#store = store;
    this.blockSizeBytes = options.blockSizeBytes ?? 512;
    this.serial = options.serial ?? 'DEMO0001';
    this.vendor = options.vendor ?? 'ISCSINBD';
    this.product = options.product ?? 'EMBEDDED DISK';
    this.revision = options.revision ?? '0001';
    const hash = createHash('sha256').update(this.serial).digest('hex');
    // NAA 3h: locally assigned, the one kind without registration (SPC-4 §7.8.6.6.4).
    this.naa = options.naa ?? `3${hash.slice(0, 15)}`;
    this.readOnly = options.readOnly ?? false;
    this.writeCacheEnabled = options.writeCache === 'volatile';
    this.thin = options.thin ?? true;
    this.cachingPage = options.cachingPage ?? true;
    this.commandQueuing = options.commandQueuing ?? true;
    this.shortAllocationLength = options.shortAllocationLength ?? false;
    this.senseFormat = options.senseFormat ?? 'fixed';
    const granularity = Math.max(1, 4096 / this.blockSizeBytes);
    this.limits = {
      transferBlocksMax: TRANSFER_BYTES_MAX / this.blockSizeBytes,
      optimalTransferBlocks: 0,
      unmapBlocksMax: 0xffffffff,
      unmapDescriptorsMax: 256,
      unmapGranularityBlocks: granularity,
      unmapAlignmentBlocks: 0,
      writeSameBlocksMax: WRITE_SAME_BYTES_MAX / this.blockSizeBytes,
      ...options.limits,
    };
    invariant(store.sizeBytes % this.blockSizeBytes === 0, 'disk size is not whole blocks');
  }

  static ram(options: TargetDiskOptions & { readonly sizeBytes: number }): TargetDisk {
    return new TargetDisk(new RamStore(options.sizeBytes), options);
  }

  get sizeBytes(): number {
    return this.#store.sizeBytes;
  }

  get blockCount(): number {
    return this.#store.sizeBytes / this.blockSizeBytes;
  }

  /** Bytes written since they were last made durable. */
  get unflushedBytes(): number {
    return this.#durable.size * this.blockSizeBytes;
  }

  /** A fresh buffer with `length` bytes from byte `offset` on. */
  read(offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    this.#store.read(bytes, offset);
    return bytes;
  }

  /** Whole blocks. `fua` makes these bytes durable at once. */
  write(offset: number, bytes: Uint8Array, options: { readonly fua?: boolean } = {}): void {
    const fua = options.fua ?? false;
    if (!fua) this.#keepDurable(offset, bytes.length);
    this.#store.write(bytes, offset);
    if (fua) this.flush({ offset, length: bytes.length });
  }

  /** The range reads as zeros afterwards. */
  unmap(offset: number, length: number): void {
    // What is not mapped does not change; so a huge range costs what it holds.
    for (let at = offset; this.writeCacheEnabled && at < offset + length; ) {
      const extent = this.#store.extent(at, offset + length - at);
      if (extent.mapped) this.#keepDurable(at, extent.length);
      at += extent.length;
    }
    this.#store.unmap(offset, length);
  }

  /** Writes `block` again and again over `length` bytes. */
  writeSame(offset: number, length: number, block: Uint8Array): void {
    if (length === 0) return;
    const run = Buffer.alloc(Math.min(length, Math.max(block.length, 1 << 20)), block);
    for (let done = 0; done < length; done += run.length) {
      this.write(offset + done, run.subarray(0, Math.min(run.length, length - done)));
    }
  }

  extent(offset: number, lengthMax: number): { mapped: boolean; length: number } {
    return this.#store.extent(offset, lengthMax);
  }

  /** Makes everything, or one range, durable. */
  flush(range?: { readonly offset: number; readonly length: number }): void {
    if (range === undefined) {
      this.#durable.clear();
    } else if (this.#durable.size > 0) {
      const end = (range.offset + range.length) / this.blockSizeBytes;
      for (let block = range.offset / this.blockSizeBytes; block < end; block += 1) {
        this.#durable.delete(block);
      }
    }
    this.#store.flush();
  }

  /**
   * Forgets what was not made durable. `survives` may spare blocks by LBA, as a real cache
   * destages in any order.
   */
  powerLoss(survives: (lba: number) => boolean = () => false): void {
    for (const [block, content] of this.#durable) {
      if (survives(block)) continue;
      const offset = block * this.blockSizeBytes;
      if (offset >= this.sizeBytes) continue;
      if (content === null) this.#store.unmap(offset, this.blockSizeBytes);
      else this.#store.write(content, offset);
    }
    this.#durable.clear();
  }

  resize(sizeBytes: number): void {
    invariant(sizeBytes % this.blockSizeBytes === 0, 'disk size is not whole blocks');
    this.#store.resize(sizeBytes);
  }

  close(): void {
    this.#store.close();
  }

  #keepDurable(offset: number, length: number): void {
    if (!this.writeCacheEnabled) return;
    const size = this.blockSizeBytes;
    const end = (offset + length) / size;
    for (let block = offset / size; block < end; block += 1) {
      if (this.#durable.has(block)) continue;
      const mapped = this.#store.extent(block * size, size).mapped;
      this.#durable.set(block, mapped ? this.read(block * size, size) : null);
    }
  }
}
