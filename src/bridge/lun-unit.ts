import type { Clock } from '../base/clock.js';
import type { SlabPool } from '../base/slab.js';
import type { LunField, ScsiPort } from '../scsi/command.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { lunField } from '../scsi/lun.js';
import type { Attention } from '../scsi/sense-table.js';
import { type IoError, IoErrorReporter } from './io-error-reporter.js';
import type { DiskAbilities } from './nbd-export.js';
import { OutageQueue } from './outage-queue.js';
import { ScsiDisk } from './scsi-disk.js';

/** One logical unit as this process serves it: the disk and the queue before it. */
export class LunUnit {
  readonly lun: number;
  readonly disk: ScsiDisk;
  readonly queue: OutageQueue;
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
    readonly onAttention: (unit: LunUnit, attention: Attention, words: string) => void;
    readonly onCongested: () => void;
    readonly onIoError?: (error: IoError) => void;
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
        attention: (attention, words) => options.onAttention(this, attention, words),
        congested: options.onCongested,
      },
    });
    const errors = new IoErrorReporter(options.onIoError ?? (() => undefined));
    this.queue = new OutageQueue(this.disk, options.clock, (request) => errors.failed(request));
  }

  get facts(): DiskFacts {
    return this.disk.facts;
  }

  get abilities(): DiskAbilities {
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
