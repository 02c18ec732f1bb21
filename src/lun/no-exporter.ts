import type { LogicalUnit } from '../bridge/logical-unit.js';
import type { LunExport } from '../config/contract.js';
import type { LunExporter } from './lun-exporter.js';

/**
 * For units that have no users outside this process. Those that were added stay in `units` until it
 * is closed: their queues know when they are away.
 */
export class NoExporter implements LunExporter {
  readonly units = new Map<number, LogicalUnit>();

  async add(unit: LogicalUnit): Promise<void> {
    this.units.set(unit.lun, unit);
  }
  async remove(): Promise<void> {}
  async resized(): Promise<void> {}
  async close(): Promise<void> {
    this.units.clear();
  }
  describe(unit: LogicalUnit): LunExport {
    const { sizeBytes, blockSizeBytes, readOnly } = unit.queue;
    return { lun: unit.lun, sizeBytes, blockSizeBytes, readOnly };
  }
  deviceOf(): undefined {
    return undefined;
  }
}
