import type { LunUnit } from '../bridge/lun-unit.js';
import type { StackExport } from './contract.js';

/** How the units of a stack reach their users: a socket, or kernel devices. */
export interface LunExporter {
  /** Makes the unit usable (again); its name stays what it was. */
  add(unit: LunUnit): Promise<void>;
  /** Takes it away after its requests have been failed: nobody is waited for. */
  remove(unit: LunUnit, reason: string): Promise<void>;
  /** The unit has another size, or is read-only or not read-only any more. */
  resized(unit: LunUnit): Promise<void>;
  describe(unit: LunUnit): StackExport;
  /** Device path where there is one, for events. */
  deviceOf(unit: LunUnit): string | undefined;
  /** Takes everything away in order. Without `force` it refuses while a device is in use. */
  close(options: { readonly force: boolean }): Promise<void>;
}
