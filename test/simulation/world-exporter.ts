import { UsageError } from '../../src/base/errors.js';
import type { LogicalUnit } from '../../src/bridge/logical-unit.js';
import type { LunExport } from '../../src/config/contract.js';
import type { LunExporter, LunExporterClose } from '../../src/lun/lun-exporter.js';
import type { ModelClient } from './model-client.js';

/**
 * Clients are closed with the export, and find the unit again when it is back. As with kernel
 * devices, an export that is removed in order has its users write first what they have not
 * written yet; one that is removed by force has not.
 */
export class WorldExporter implements LunExporter {
  readonly clients = new Set<ModelClient>();
  readonly #units = new Map<number, LogicalUnit>();
  readonly #sizes = new Map<number, number>();
  /** By LUN: writes what its users still have to write, and resolves when that is answered. */
  readonly writeBack = new Map<number, () => Promise<void>>();

  /** The first LUN is exported. */
  get isExported(): boolean {
    return this.#units.size > 0 && this.has(this.#firstLun);
  }

  /** Of the first LUN. */
  get sizeBytes(): number {
    return this.#sizes.get(this.#firstLun) ?? 0;
  }

  has(lun: number): boolean {
    return this.#units.has(lun);
  }

  async add(unit: LogicalUnit): Promise<void> {
    this.#units.set(unit.lun, unit);
    this.#sizes.set(unit.lun, unit.queue.sizeBytes);
  }

  async remove(unit: LogicalUnit): Promise<void> {
    this.#units.delete(unit.lun);
    this.#closeClients(unit.lun);
  }

  async resized(unit: LogicalUnit): Promise<void> {
    this.#sizes.set(unit.lun, unit.queue.sizeBytes);
  }

  /** Users of these LUNs do not let go of them. */
  readonly inUse = new Set<number>();

  async close(how: LunExporterClose): Promise<void> {
    const units = [...this.#units.values()];
    if (!how.force) {
      const user = units.find(({ lun }) => this.inUse.has(lun));
      if (user !== undefined) {
        throw new UsageError(`LUN ${user.lun} is in use`, { code: 'ERR_DEVICE_IN_USE' });
      }
      for (const unit of units) if (how.isServing(unit)) await this.writeBack.get(unit.lun)?.();
      how.unused();
    }
    for (const { lun } of units) {
      this.#units.delete(lun);
      this.#closeClients(lun);
    }
  }

  describe(unit: LogicalUnit): LunExport {
    const { sizeBytes, blockSizeBytes, readOnly } = unit.queue;
    return { lun: unit.lun, sizeBytes, blockSizeBytes, readOnly };
  }

  deviceOf(): undefined {
    return undefined;
  }

  /** The process has ended, and its clients' sockets with it. */
  die(): void {
    this.#units.clear();
    for (const client of [...this.clients]) client.serverDied();
    this.clients.clear();
  }

  get #firstLun(): number {
    return Math.min(...this.#sizes.keys());
  }

  #closeClients(lun: number): void {
    for (const client of [...this.clients]) {
      if (client.lun !== lun) continue;
      this.clients.delete(client);
      client.close();
    }
  }
}
