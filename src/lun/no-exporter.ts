import type { LunUnit } from '../bridge/lun-unit.js';
import type { StackExport } from '../config/contract.js';
import type { LunExporter } from './lun-exporter.js';

/** Stands in where the units have no users outside this process. */
export class NoExporter implements LunExporter {
  async add(): Promise<void> {}
  async remove(): Promise<void> {}
  async resized(): Promise<void> {}
  async close(): Promise<void> {}
  describe(unit: LunUnit): StackExport {
    const { sizeBytes, blockSizeBytes, readOnly } = unit.queue;
    return { lun: unit.lun, sizeBytes, blockSizeBytes, readOnly };
  }
  deviceOf(): undefined {
    return undefined;
  }
}
