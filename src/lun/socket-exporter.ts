import { resolve } from 'node:path';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import { NbdConnection } from '../bridge/nbd-connection.js';
import { exportInfo, type NbdExport, type NbdExportCatalog } from '../bridge/nbd-export.js';
import type { LunExport } from '../config/contract.js';
import { NbdSocketServer } from '../io/nbd-socket.js';
import type { LunExporter, LunExporterClose } from './lun-exporter.js';
import type { SessionResources } from './runtime.js';

/** What gets the end of the export. */
export type SocketExporterEnd = {
  /** The clients are about to be sent away. */
  readonly begins: () => void;
  /** They are gone, and the session is still there; `units` can be asked. */
  readonly clientsGone: (units: readonly LogicalUnit[]) => Promise<void>;
};

/**
 * Exports on one unix socket, each named by its LUN number; when there is only one it is the
 * default export too. The path is there exactly while there is something to serve.
 */
export class SocketExporter implements LunExporter, NbdExportCatalog {
  readonly #path: string;
  readonly #resources: SessionResources;
  readonly #units = new Map<number, LogicalUnit>();
  /** LUNs that were ever exported: the default export must not become another disk's. */
  readonly #known = new Set<number>();
  readonly #isSingle: boolean;
  readonly #description: string;
  readonly #end: SocketExporterEnd | undefined;
  #server: NbdSocketServer | null = null;

  constructor(options: {
    readonly path: string;
    readonly resources: SessionResources;
    readonly isSingle: boolean;
    readonly description: string;
    readonly end?: SocketExporterEnd;
  }) {
    this.#path = resolve(options.path);
    this.#resources = options.resources;
    this.#isSingle = options.isSingle;
    this.#description = options.description;
    this.#end = options.end;
  }

  list(): readonly NbdExport[] {
    return [...this.#units.values()].map((unit) => this.#exportOf(unit));
  }

  find(name: string): NbdExport | null {
    const only = this.#known.size === 1 ? [...this.#units.values()][0] : undefined;
    const unit = name === '' ? only : this.#units.get(exportNumber(name));
    return unit === undefined ? null : this.#exportOf(unit);
  }

  async add(unit: LogicalUnit): Promise<void> {
    this.#units.set(unit.lun, unit);
    this.#known.add(unit.lun);
  }

  /** Opens the socket; called when every unit has been added. */
  async listen(): Promise<void> {
    if (this.#server !== null) return;
    const server = new NbdSocketServer({
      path: this.#path,
      resources: this.#resources,
      makeServer: (driver) => {
        return new NbdConnection({ pool: this.#resources.pool, driver, catalog: this });
      },
    });
    await server.listen();
    this.#server = server;
  }

  async remove(unit: LogicalUnit, reason: string): Promise<void> {
    this.#units.delete(unit.lun);
    if (this.#units.size === 0) await this.#closeServer(reason);
  }

  /** NBD has no way to tell a client of the socket; the next client sees it. */
  async resized(): Promise<void> {}

  describe(unit: LogicalUnit): LunExport {
    const name = this.#isSingle ? '' : String(unit.lun);
    return {
      lun: unit.lun,
      socket: this.#path,
      uri: `nbd+unix:///${name}?socket=${inUri(this.#path)}`,
      sizeBytes: unit.queue.sizeBytes,
      blockSizeBytes: unit.queue.blockSizeBytes,
      readOnly: unit.queue.readOnly,
    };
  }

  deviceOf(): undefined {
    return undefined;
  }

  async close({ force, isServing }: LunExporterClose): Promise<void> {
    const serving = force ? [] : [...this.#units.values()].filter(isServing);
    this.#end?.begins();
    this.#units.clear();
    await this.#closeServer('the export is being removed');
    await this.#end?.clientsGone(serving);
  }

  async #closeServer(reason: string): Promise<void> {
    const server = this.#server;
    this.#server = null;
    await server?.close(reason);
  }

  #exportOf(unit: LogicalUnit): NbdExport {
    const name = this.#isSingle ? '' : String(unit.lun);
    const { vendor, product } = unit.facts;
    const description = `${this.#description} LUN ${unit.lun} (${vendor} ${product})`;
    return {
      info: exportInfo(name, description, unit.queue, unit.capabilities),
      device: unit.queue,
      budget: unit.budget,
    };
  }
}

function exportNumber(name: string): number {
  return /^\d{1,8}$/.test(name) ? Number(name) : -1;
}

/** A path as a value in a URI's query: what means something there, such as & and #, is escaped. */
function inUri(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/');
}
