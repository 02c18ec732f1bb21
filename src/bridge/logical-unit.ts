import type { Clock } from '../base/clock.js';
import type { SlabPool } from '../base/slab.js';
import type { LunField, ScsiPort } from '../scsi/command.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { lunField } from '../scsi/lun.js';
import type { Attention } from '../scsi/sense-table.js';
import type { BlockRequest } from './block-device.js';
import type { Budget } from './budget.js';
import { type IoError, IoErrorReporter } from './io-error-reporter.js';
import type { ExportCapabilities } from './nbd-export.js';
import { OutageQueue } from './outage-queue.js';
import { Replay, type ReplayEnd } from './retained/replay.js';
import { RetainedWrites } from './retained/retained-writes.js';
import { RetainingDisk } from './retained/retaining-disk.js';
import { ScsiDisk } from './scsi-disk.js';
import { UnitBudget } from './unit-budget.js';

export type RetainOptions = Omit<ConstructorParameters<typeof RetainedWrites>[0], 'pool' | 'clock'>;

/** One logical unit as this process serves it: the disk and the queue before it. */
export class LogicalUnit {
  readonly lun: number;
  readonly disk: ScsiDisk;
  readonly queue: OutageQueue;
  /** What its clients may have under way. */
  readonly budget: UnitBudget;
  /** The facts that were true when it was first seen; the identity it must keep. */
  readonly firstFacts: DiskFacts;
  /** Acknowledged writes that no flush covers; null if they are not retained. */
  readonly retained: RetainedWrites | null;
  readonly #retaining: RetainingDisk | null = null;
  readonly #pool: SlabPool;
  #replay: Replay | null = null;

  constructor(options: {
    readonly lun: number;
    /** By which the target knows it; absent: the usual one of its number. */
    readonly field?: LunField;
    readonly facts: DiskFacts;
    readonly forcedReadOnly: boolean;
    readonly port: ScsiPort;
    readonly pool: SlabPool;
    readonly clock: Clock;
    /** The session's; the unit has a part of it until it is closed. */
    readonly budget: Budget;
    /** As `ScsiDiskHooks.attention`. */
    readonly onAttention: (unit: LogicalUnit, attention: Attention, sinceMs: number) => void;
    readonly onCongested: () => void;
    /** As `ScsiDiskHooks.transfersCut`. */
    readonly onTransfersCut?: (refusedBytes: number, bytesMax: number) => void;
    readonly onIoError?: (error: IoError) => void;
    /** As `ScsiDiskHooks.lossChanged`. */
    readonly onLossChanged?: (unit: LogicalUnit, isUntold: boolean) => void;
    /** As `ScsiDiskHooks.firstWrite`. */
    readonly onFirstWrite?: () => void;
    /** Acknowledged writes are retained; absent: they are not. */
    readonly retain?: RetainOptions | undefined;
  }) {
    this.lun = options.lun;
    this.firstFacts = options.facts;
    const { pool, clock, retain } = options;
    this.#pool = pool;
    this.retained = retain === undefined ? null : new RetainedWrites({ pool, clock, ...retain });
    this.disk = new ScsiDisk({
      port: options.port,
      pool,
      clock,
      retained: this.retained,
      lun: options.field ?? lunField(options.lun),
      facts: options.facts,
      forcedReadOnly: options.forcedReadOnly,
      hooks: {
        maySend: () => this.queue.mode === 'open',
        requestLost: (request) => this.queue.requestLost(request),
        attention: (attention, _words, sinceMs) => options.onAttention(this, attention, sinceMs),
        congested: options.onCongested,
        transfersCut: (...bytes) => options.onTransfersCut?.(...bytes),
        lossChanged: (isUntold) => options.onLossChanged?.(this, isUntold),
        firstWrite: () => options.onFirstWrite?.(),
      },
    });
    const errors = new IoErrorReporter(options.onIoError ?? (() => undefined));
    const failed = (request: BlockRequest) => errors.failed(request);
    if (this.retained !== null) {
      this.#retaining = new RetainingDisk(this.disk, pool, {
        retained: this.retained,
        isHeld: () => this.queue.mode !== 'open',
        requestLost: (request) => this.queue.requestLost(request),
        requestFailed: failed,
      });
    }
    this.queue = new OutageQueue(this.#retaining ?? this.disk, clock, failed);
    this.budget = new UnitBudget(options.budget);
  }

  /** Nothing goes to the disk from now on, not even what has been given to the session. */
  hold(): void {
    this.queue.hold();
    this.#retaining?.recall();
    this.disk.recall();
  }

  /** A process before this one had the disk: its writes may be in the cache, acknowledged. */
  takenOver(hadCache = false): void {
    if (hadCache || this.facts.writeCacheEnabled) this.disk.cache.mayHaveBeenWritten();
  }

  /** Writes again what is retained, while all else is held; `onProgress`: the disk takes it. */
  replay(retained: RetainedWrites, onProgress: () => void): Promise<ReplayEnd> {
    this.interruptReplay();
    this.#replay = new Replay(this.disk, this.#pool, { retained, onProgress });
    return this.#replay.run();
  }

  /** Nothing of a replay is sent any more: the disk at the LUN is unknown. */
  interruptReplay(): void {
    if (this.#replay === null) return;
    this.#replay.interrupt();
    this.#replay = null;
    this.disk.recall();
  }

  /** The unit is not used any more; requests under way still end. */
  close(): void {
    this.interruptReplay();
    this.#retaining?.close();
    this.disk.close();
    this.budget.close();
  }

  get facts(): DiskFacts {
    return this.disk.facts;
  }

  get capabilities(): ExportCapabilities {
    const { thin, rotational, blockSizeBytes, physicalBlockExponent } = this.facts;
    const canTrim = thin.unmap || thin.writeSame16Unmap;
    return {
      blockStatus: canTrim,
      trim: canTrim,
      writeZeroes: this.facts.limits.writeSameBlocksMax > 0,
      rotational: rotational === true,
      physicalBlockBytes: blockSizeBytes * 2 ** physicalBlockExponent,
    };
  }
}
