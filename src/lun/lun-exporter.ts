import type { LogicalUnit } from '../bridge/logical-unit.js';
import type { LunExport } from '../config/contract.js';

export type LunExporterClose = {
  /** No user is asked, and nothing is flushed. */
  readonly force: boolean;
  /** A unit that does not serve cannot be flushed. */
  readonly isServing: (unit: LogicalUnit) => boolean;
  /** Called when no user refuses any more, before those that do not serve are removed. */
  readonly unused: () => void;
};

/** How the units of a stack reach their users: a socket, or kernel devices. */
export interface LunExporter {
  /** Makes the unit usable (again); its name stays what it was. */
  add(unit: LogicalUnit): Promise<void>;
  /** Removes it after its requests have been failed, without a wait for users. */
  remove(unit: LogicalUnit, reason: string): Promise<void>;
  /** Writes down what the unit is now, for a process that takes it over. */
  keepFacts?(unit: LogicalUnit): Promise<void>;
  /** The unit has another size, or is read-only or not read-only any more. */
  resized(unit: LogicalUnit): Promise<void>;
  /** Its disks are reached over other portals than before: they have names by these. */
  pathsChanged?(): Promise<void>;
  describe(unit: LogicalUnit): LunExport;
  /** Device path if it has one, for events. */
  deviceOf(unit: LogicalUnit): string | undefined;
  /** Removes everything in order. Without `force` it refuses while a device is in use. */
  close(how: LunExporterClose): Promise<void>;
}
