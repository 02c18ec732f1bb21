import type { Clock } from '../base/clock.js';
import type { SerialQueue } from '../base/serial-queue.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import type { ReplayReason } from '../bridge/retained/retained-writes.js';
import type { ScsiAnswer, ScsiRequest } from '../config/contract.js';
import type { LunExporter } from './lun-exporter.js';
import type { RemovalTimers } from './removal-timer.js';

/** What happens to a LUN; the publisher adds which LUN it is. */
export type LunNews =
  | { readonly event: 'deviceHeld'; readonly requests: number; readonly bytes: number }
  | { readonly event: 'deviceReleased' | 'deviceAttached' }
  | { readonly event: 'deviceRemoved'; readonly reason: string }
  | {
      readonly event: 'writesReplayed';
      readonly requests: number;
      readonly bytes: number;
      readonly milliseconds: number;
      readonly reason: ReplayReason;
    }
  | { readonly event: 'deviceResized'; readonly sizeBytes: number }
  | { readonly event: 'warning'; readonly message: string };

export type LunLifecycleOptions = {
  readonly unit: LogicalUnit;
  /** One command over the session as it is now; `onSent` is called when it leaves. */
  readonly execute: (request: ScsiRequest, onSent: () => void) => Promise<ScsiAnswer>;
  readonly clock: Clock;
  /** The exporter's work, in order over all LUNs of a session. */
  readonly turns: SerialQueue;
  /** See the option of that name. */
  readonly allowUnidentified: boolean;
  readonly timers: RemovalTimers;
  /** Pause between two probes of a LUN that does not serve. */
  readonly probeIntervalMs: () => number;
  readonly exporter: () => LunExporter;
  /** The unit has the facts of a probe that has found the same disk. */
  readonly factsRead: (unit: LogicalUnit) => void;
  /** Opens what the exporter serves on, if that went with the last LUN. */
  readonly openExporter: () => Promise<void>;
  readonly emit: (news: LunNews) => void;
  /** No request of it waits any more. */
  readonly onRemoved: () => void;
};
