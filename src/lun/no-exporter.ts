import type { LunUnit } from '../bridge/lun-unit.js';
import type { StackExport } from '../config/contract.js';
import type { LunExporter } from './lun-exporter.js';

/**
 * For units that have no users outside this process. Those that were added stay in `units` until it
 * is closed: their queues know when they are away.
 */
export class NoExporter implements LunExporter {
  readonly units = new Map<number, LunUnit>();

  async add(unit: LunUnit): Promise<void> {
    this.units.set(unit.lun, unit);
  }
  async remove(): Promise<void> {}
  async resized(): Promise<void> {}
  async close(): Promise<void> {
    this.units.clear();
  }
  describe(unit: LunUnit): StackExport {
    const { sizeBytes, blockSizeBytes, readOnly } = unit.queue;
    return { lun: unit.lun, sizeBytes, blockSizeBytes, readOnly };
  }
  deviceOf(): undefined {
    return undefined;
  }
}
