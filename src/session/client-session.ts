import { BlockClient, type BlockOptions, type WriteOptions } from '../bridge/block-client.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import type {
  ProductEvent,
  ScsiAnswer,
  ScsiRequest,
  SessionOptions,
  TargetUrl,
} from '../config/contract.js';
import { requireDisks } from '../lun/find-disks.js';
import { NoExporter } from '../lun/no-exporter.js';
import { reportLuns } from '../lun/report-luns.js';
import { threadRuntime } from '../lun/runtime.js';
import { BlockSession } from './block-session.js';
import { newIdentity } from './session-identity.js';

export type DiskCapacity = {
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  readonly readOnly: boolean;
};

/**
 * A session whose user is this program itself: LUNs are read and written with promises, and no
 * NBD is involved. Outages are ridden out as with any other session: requests wait until the target
 * is back or the removal latency has passed.
 */
export class ClientSession implements AsyncDisposable {
  readonly #stack: BlockSession;
  readonly #disks = new Map<number, Promise<{ unit: LogicalUnit; client: BlockClient }>>();
  readonly #exporter = new NoExporter();
  readonly #search = { onWarning: (message: string) => this.#stack.warn(message) };

  private constructor(stack: BlockSession) {
    this.#stack = stack;
    stack.useExporter(this.#exporter, async () => {});
  }

  /** Logs in. Rejects with the errors of the login, or with what `signal` aborts with. */
  static async open(
    url: TargetUrl,
    options: SessionOptions,
    hooks: { readonly signal: AbortSignal; readonly onEvent: (event: ProductEvent) => void },
  ): Promise<ClientSession> {
    const stack = new BlockSession(threadRuntime(), hooks, {
      type: options.sessionType,
      targetName: url.targetName,
      portals: [{ host: url.host, port: url.port }, ...options.portals],
      identity: newIdentity(),
      firstLogin: 'once',
      options,
    });
    try {
      await stack.login(hooks.signal);
      return new ClientSession(stack);
    } catch (error) {
      await stack.close({ force: true }).catch(() => undefined);
      throw error;
    }
  }

  /** UniqueSessionId: 16 hex digits, the same until the logout. */
  get sessionId(): string {
    return this.#stack.sessionId;
  }

  /** One SCSI command without data, or that reads at most `length` bytes. */
  execute(request: ScsiRequest): Promise<ScsiAnswer> {
    return this.#stack.execute(request);
  }

  async luns(): Promise<number[]> {
    return [...(await reportLuns(this.#stack))];
  }

  async capacity(lun: number): Promise<DiskCapacity> {
    const { sizeBytes, blockSizeBytes, readOnly } = (await this.#disk(lun)).unit.queue;
    return { sizeBytes, blockSizeBytes, readOnly };
  }

  async read(lun: number, offset: number, length: number, options?: BlockOptions): Promise<Buffer> {
    return (await this.#disk(lun)).client.read(offset, length, options);
  }

  async write(
    lun: number,
    offset: number,
    data: Uint8Array,
    options?: WriteOptions,
  ): Promise<void> {
    return (await this.#disk(lun)).client.write(offset, data, options);
  }

  async flush(lun: number, options?: BlockOptions): Promise<void> {
    return (await this.#disk(lun)).client.flush(options);
  }

  /** Logs out; requests under way fail with BlockError. May be called again. */
  close(): Promise<void> {
    return this.#stack.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** A LUN is asked what it is when it is first used. */
  #disk(lun: number): Promise<{ unit: LogicalUnit; client: BlockClient }> {
    const known = this.#disks.get(lun);
    if (known !== undefined) return known;
    const opening = this.#openDisk(lun);
    this.#disks.set(lun, opening);
    // What failed may work the next time.
    opening.catch(() => this.#disks.delete(lun));
    return opening;
  }

  async #openDisk(lun: number): Promise<{ unit: LogicalUnit; client: BlockClient }> {
    for (const { facts } of await requireDisks(this.#stack, [lun], this.#search)) {
      await this.#stack.addDisk(lun, facts);
    }
    const unit = this.#exporter.units.get(lun);
    if (unit === undefined) throw new Error(`LUN ${lun} went away while it was opened`);
    return { unit, client: new BlockClient(unit, this.#stack.resources) };
  }
}
