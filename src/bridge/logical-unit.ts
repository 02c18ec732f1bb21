import type { Clock } from '../base/clock.js';
import type { SlabPool } from '../base/slab.js';
import type { LunField, ScsiPort } from '../scsi/command.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { lunField } from '../scsi/lun.js';
import type { Attention } from '../scsi/sense-table.js';
import type { Budget } from './budget.js';
import { type IoError, IoErrorReporter } from './io-error-reporter.js';
import type { ExportCapabilities } from './nbd-export.js';
import { OutageQueue } from './outage-queue.js';
import { ScsiDisk } from './scsi-disk.js';
import { UnitBudget } from './unit-budget.js';

/** One logical unit as this process serves it: the disk and the queue before it. */
export class LogicalUnit {
  readonly lun: number;
  readonly disk: ScsiDisk;
  readonly queue: OutageQueue;
  /** What its clients may have under way. */
  readonly budget: UnitBudget;
  /** The facts that were true when it was first seen; the identity it must keep. */
  readonly firstFacts: DiskFacts;

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
    readonly onIoError?: (error: IoError) => void;
    /**
     * Acknowledged writes are known to be lost and somebody has not been told, or everybody has;
     * called before a request is answered that shows it.
     */
    readonly onLossChanged?: (unit: LogicalUnit, isUntold: boolean) => void;
    /** As `ScsiDiskHooks.firstWrite`. */
    readonly onFirstWrite?: () => void;
  }) {
    this.lun = options.lun;
    this.firstFacts = options.facts;
    this.disk = new ScsiDisk({
      port: options.port,
      pool: options.pool,
      clock: options.clock,
      lun: options.field ?? lunField(options.lun),
      facts: options.facts,
      forcedReadOnly: options.forcedReadOnly,
      hooks: {
        maySend: () => this.queue.mode === 'open',
        requestLost: (request) => this.queue.requestLost(request),
        attention: (attention, _words, sinceMs) => options.onAttention(this, attention, sinceMs),
        congested: options.onCongested,
        lossChanged: (isUntold) => options.onLossChanged?.(this, isUntold),
        firstWrite: () => options.onFirstWrite?.(),
      },
    });
    const errors = new IoErrorReporter(options.onIoError ?? (() => undefined));
    this.queue = new OutageQueue(this.disk, options.clock, (request) => errors.failed(request));
    this.budget = new UnitBudget(options.budget);
  }

  /** Nothing goes to the disk from now on, not even what has been given to the session. */
  hold(): void {
    this.queue.hold();
    this.disk.recall();
  }

  /** The unit is not used any more; requests under way still end. */
  close(): void {
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
