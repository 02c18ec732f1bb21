import { InvariantError, UsageError } from '../base/errors.js';
import type { LunUnit } from '../bridge/lun-unit.js';
import { NbdConnection } from '../bridge/nbd-connection.js';
import { transmissionFlags } from '../bridge/nbd-export.js';
import { loadedAddon } from '../io/native.js';
import { NbdClient } from '../io/nbd-client.js';
import { NbdKernelDevice, type NbdLink } from '../io/nbd-device.js';
import type { NbdAddon } from '../io/nbd-netlink.js';
import { requireKernelNbd } from '../io/nbd-support.js';
import { findByIdentifier, isConfigured } from '../io/nbd-sysfs.js';
import type { StackExport } from './contract.js';
import type { LunExporter } from './lun-exporter.js';
import type { StackResources } from './runtime.js';

export const nbdAddon = loadedAddon as NbdAddon;

/**
 * How long the kernel lets requests wait for a process that has died. Long, so that a restart, even
 * a slow one, is a pause; finite, so that nothing waits for ever if nobody comes back.
 */
const DEAD_CONN_TIMEOUT_SECONDS = 600;

/** Kernel devices, one for each unit, that keep their index while the session lives. */
export class DeviceExporter implements LunExporter {
  readonly #resources: StackResources;
  readonly #sessionId: string;
  readonly #devices = new Map<number, NbdKernelDevice>();
  /** Index each LUN had first, so that it comes back under the same name. */
  readonly #indexes = new Map<number, number>();
  readonly #onLinkLost: (unit: LunUnit, reason: string) => void;

  constructor(options: {
    readonly resources: StackResources;
    readonly sessionId: string;
    /** The kernel let go of a device that we did not take away. */
    readonly onLinkLost: (unit: LunUnit, reason: string) => void;
  }) {
    this.#resources = options.resources;
    this.#sessionId = options.sessionId;
    this.#onLinkLost = options.onLinkLost;
  }

  /** Throws UsageError 27 or 13 where the kernel has no nbd, or this process no right to it. */
  static async requireSupport(): Promise<void> {
    await requireKernelNbd(nbdAddon);
  }

  static identifier(sessionId: string, lun: number): string {
    return `iscsi-nbd:${sessionId}:${lun}`;
  }

  /** Throws UsageError 28 while the old device of this LUN is still held open. */
  async add(unit: LunUnit): Promise<void> {
    const identifier = DeviceExporter.identifier(this.#sessionId, unit.lun);
    const options = {
      sizeBytes: unit.queue.sizeBytes,
      blockSizeBytes: unit.queue.blockSizeBytes,
      serverFlags: transmissionFlags(unit.queue, unit.abilities) & KERNEL_FLAGS,
      identifier,
      deadConnTimeoutSeconds: DEAD_CONN_TIMEOUT_SECONDS,
      serve: (fd: number) => this.#serve(fd, unit),
    };
    if (options.blockSizeBytes > 4096) {
      throw new UsageError(
        `LUN ${unit.lun} has blocks of ${options.blockSizeBytes} bytes; the kernel's nbd driver ` +
          'takes 512 to 4096. `iscsi-nbd serve` exports it on a socket.',
        { exitCode: 27 },
      );
    }
    const index = this.#indexes.get(unit.lun);
    const left = await findByIdentifier(identifier);
    const device =
      left !== null && index === undefined
        ? await NbdKernelDevice.takeOver(nbdAddon, { ...options, index: left.index })
        : await NbdKernelDevice.connect(nbdAddon, {
            ...options,
            ...(index === undefined ? {} : { index }),
          });
    this.#devices.set(unit.lun, device);
    this.#indexes.set(unit.lun, device.index);
  }

  async remove(unit: LunUnit): Promise<void> {
    const device = this.#devices.get(unit.lun);
    if (device === undefined) return;
    this.#devices.delete(unit.lun);
    await device.disconnect({ force: true });
  }

  /** True while the kernel still keeps the removed device of this LUN, for somebody holds it. */
  async isHeldOpen(unit: LunUnit): Promise<boolean> {
    const index = this.#indexes.get(unit.lun);
    return index !== undefined && !this.#devices.has(unit.lun) && (await isConfigured(index));
  }

  async resized(unit: LunUnit): Promise<void> {
    await this.#devices.get(unit.lun)?.resize(unit.queue.sizeBytes);
  }

  describe(unit: LunUnit): StackExport {
    const device = this.deviceOf(unit);
    if (device === undefined) throw new InvariantError(`LUN ${unit.lun} has no device`);
    return {
      lun: unit.lun,
      device,
      sizeBytes: unit.queue.sizeBytes,
      blockSizeBytes: unit.queue.blockSizeBytes,
      readOnly: unit.queue.readOnly,
    };
  }

  deviceOf(unit: LunUnit): string | undefined {
    const index = this.#indexes.get(unit.lun);
    return index === undefined ? undefined : `/dev/nbd${index}`;
  }

  /**
   * Takes every device away. Without `force` all are asked first: one in use refuses the whole
   * (UsageError 28), so that nothing is half gone.
   */
  async close(options: { readonly force: boolean }): Promise<void> {
    for (const [lun, device] of [...this.#devices]) {
      await device.disconnect({ force: options.force });
      this.#devices.delete(lun);
    }
  }

  #serve(fd: number, unit: LunUnit): NbdLink {
    return new NbdClient({
      fd,
      resources: this.#resources,
      makeServer: (driver) => {
        const { pool, budget } = this.#resources;
        return new NbdConnection({ pool, budget, driver, device: unit.queue });
      },
      onClosed: (_client, reason) => {
        if (this.#devices.has(unit.lun)) this.#onLinkLost(unit, reason);
      },
    });
  }
}

/** Flags the driver knows: HAS_FLAGS … WRITE_ZEROES; with one connection no CAN_MULTI_CONN. */
const KERNEL_FLAGS = 0x7f;
