import { errnoOf, InvariantError, UsageError } from '../base/errors.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import { NbdConnection } from '../bridge/nbd-connection.js';
import { transmissionFlags } from '../bridge/nbd-export.js';
import type { LunExport } from '../config/contract.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import {
  type DeviceName,
  type DevicePlace,
  forgetNames,
  publishNames,
  withdrawNames,
} from '../io/device-symlinks.js';
import { loadedAddon } from '../io/native.js';
import {
  type NbdClaim,
  type NbdDeviceOptions,
  NbdKernelDevice,
  type NbdLink,
} from '../io/nbd-device.js';
import { type NbdAddon, NbdKernelError } from '../io/nbd-netlink.js';
import { NbdServerConnection } from '../io/nbd-server-connection.js';
import { requireKernelNbd } from '../io/nbd-support.js';
import {
  describeHolders,
  findByIdentifier,
  findHolders,
  isConfigured,
  partitionsOf,
  sizeOf,
} from '../io/nbd-sysfs.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { absentIndexes } from './absent-indexes.js';
import { deviceIdentifier } from './device-identifier.js';
import type { LunExporter, LunExporterClose } from './lun-exporter.js';
import type { SessionResources } from './runtime.js';

export const nbdAddon = loadedAddon as NbdAddon;

/**
 * How long the kernel lets requests wait for a process that has died. Long, so that a restart, even
 * a slow one, is a pause; finite, so that nothing waits for ever if no process comes back.
 */
const DEAD_CONN_TIMEOUT_SECONDS = 600;

/** Flags the driver knows: HAS_FLAGS … WRITE_ZEROES; with one connection no CAN_MULTI_CONN. */
const KERNEL_FLAGS = 0x7f;

type DeviceExporterOptions = {
  readonly resources: SessionResources;
  readonly sessionId: string;
  /** The kernel let go of a device that we did not take away. */
  readonly onLinkLost: (unit: LogicalUnit, reason: string) => void;
  /** A device cannot be removed, or come back, while `holders` use it; told when they change. */
  readonly onInUse?: (place: { lun: number; device: string }, holders: string) => void;
  readonly onWarning?: (message: string) => void;
  /** Writes down what a device is made of; awaited before the kernel gets it. */
  readonly keep?: (lun: number, facts: DiskFacts) => Promise<void>;
  /** Stable names are made of these; without it there are none. */
  readonly names?: {
    readonly portal: PortalAddress;
    readonly targetName: string;
    /** Where the LUN is reached over its paths, as they are now. */
    readonly places: (lun: number) => readonly DevicePlace[];
  };
};

/** Kernel devices, one for each unit, that keep their index while the session lives. */
export class DeviceExporter implements LunExporter {
  readonly #options: DeviceExporterOptions;
  readonly #devices = new Map<LogicalUnit, NbdKernelDevice>();
  /** Index each LUN had first, so that it comes back under the same name. */
  readonly #indexes = new Map<number, number>();
  readonly #named = new Map<number, DeviceName>();
  /** Who keeps a device from going or coming back, as last told. */
  readonly #inUse = new Map<number, string>();
  #isLeft = false;

  constructor(options: DeviceExporterOptions) {
    this.#options = options;
  }

  /** Throws UsageError 27 or 13 where the kernel has no nbd, or this process no right to it. */
  static async requireSupport(): Promise<void> {
    await requireKernelNbd(nbdAddon);
  }

  /**
   * Makes the unit's device, under the index it had before; or takes back the one that a process
   * before this one left. Throws UsageError 28 while the removed device is held open.
   */
  async add(unit: LogicalUnit): Promise<void> {
    if (this.#isLeft) throw leftToTheNext(unit.lun);
    const { blockSizeBytes } = unit.queue;
    if (blockSizeBytes > 4096) {
      throw new UsageError(
        `LUN ${unit.lun} has blocks of ${blockSizeBytes} bytes; the kernel's nbd driver takes ` +
          '512 to 4096. `iscsi-nbd serve` exports it on a socket.',
        { exitCode: 27 },
      );
    }
    await this.#options.keep?.(unit.lun, unit.facts);
    const identifier = deviceIdentifier(this.#options.sessionId, unit.lun);
    const options = {
      sizeBytes: unit.queue.sizeBytes,
      blockSizeBytes,
      serverFlags: transmissionFlags(unit.queue, unit.capabilities) & KERNEL_FLAGS,
      identifier,
      deadConnTimeoutSeconds: DEAD_CONN_TIMEOUT_SECONDS,
      serve: (fd: number) => this.#serve(fd, unit),
    };
    const index = this.#indexes.get(unit.lun);
    const left = index === undefined ? await findByIdentifier(identifier) : null;
    if (index !== undefined) await this.#refuseHeldOpen(unit.lun, index);
    if (left !== null) await refuseShrunk(left.index, unit);
    else await this.#tryNames(unit.lun, () => forgetNames(identifier));
    const device =
      left !== null
        ? await NbdKernelDevice.takeOver(nbdAddon, { ...options, index: left.index })
        : await (index === undefined
            ? absentIndexes.connectNew((free) => connect(options, free))
            : connect(options, index));
    if (this.#isLeft) {
      device.leave();
      throw leftToTheNext(unit.lun);
    }
    this.#devices.set(unit, device);
    this.#indexes.set(unit.lun, device.index);
    absentIndexes.over(device.index);
    await this.#publish(unit, device.index);
  }

  async remove(unit: LogicalUnit): Promise<void> {
    const device = this.#devices.get(unit);
    if (device === undefined) return;
    this.#devices.delete(unit);
    // Before the kernel may give the index to another disk.
    absentIndexes.removed(device.index);
    await device.disconnect({ force: true });
    await this.#withdraw(unit.lun);
  }

  /** A record that cannot be written is reported; the disk goes on. */
  async keepFacts(unit: LogicalUnit): Promise<void> {
    try {
      await this.#options.keep?.(unit.lun, unit.facts);
    } catch (error) {
      if (!(error instanceof Error) || error instanceof InvariantError) throw error;
      this.#options.onWarning?.(
        `what LUN ${unit.lun} is now is not written down: ${error.message}`,
      );
    }
  }

  async resized(unit: LogicalUnit): Promise<void> {
    const device = this.#devices.get(unit);
    if (device === undefined) return;
    const { sizeBytes, readOnly } = unit.queue;
    if (device.sizeBytes !== sizeBytes) await device.resize(sizeBytes);
    if (device.readOnly !== readOnly) await device.setReadOnly(readOnly);
  }

  describe(unit: LogicalUnit): LunExport {
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

  deviceOf(unit: LogicalUnit): string | undefined {
    const index = this.#indexes.get(unit.lun);
    return index === undefined ? undefined : `/dev/nbd${index}`;
  }

  /**
   * Removes every device. Without `force` all are asked first: one in use refuses the whole
   * (UsageError 28), so that nothing is half gone.
   */
  async close(how: LunExporterClose): Promise<void> {
    const devices = [...this.#devices];
    const claims: NbdClaim[] = [];
    try {
      if (!how.force) {
        for (const [unit, device] of devices) claims.push(await this.#claim(unit.lun, device));
        for (const [at, [unit, device]] of devices.entries()) {
          if (how.isServing(unit)) await this.#write(claims[at], device);
        }
        how.unused();
      }
      for (const [unit, device] of devices) {
        await device.disconnect({ force: true });
        this.#devices.delete(unit);
        await this.#withdraw(unit.lun);
      }
      for (const index of this.#indexes.values()) absentIndexes.over(index);
    } finally {
      // The kernel frees a device with its last close.
      for (const claim of claims) await claim.release();
    }
  }

  /**
   * Leaves every device, with its waiting requests, to a process that comes after this one; what
   * is new from now on is that one's too. What a disk that serves has been asked is answered first.
   */
  async leave(): Promise<void> {
    this.#isLeft = true;
    const devices = [...this.#devices];
    this.#devices.clear();
    await Promise.all(
      devices.map(([unit, device]) => {
        return unit.queue.mode === 'open' ? device.leaveInOrder() : device.leave();
      }),
    );
  }

  /** After its removal a device that is held open cannot be made again. */
  async #refuseHeldOpen(lun: number, index: number): Promise<void> {
    if (!(await isConfigured(index))) {
      this.#inUse.delete(lun);
      return;
    }
    const holders = await this.#tellInUse(lun, index);
    throw new UsageError(
      `/dev/nbd${index} cannot come back while its removed predecessor is held open: ${holders}. ` +
        'Unmount or release it.',
      { exitCode: 28, code: 'ERR_DEVICE_IN_USE' },
    );
  }

  async #claim(lun: number, device: NbdKernelDevice): Promise<NbdClaim> {
    try {
      return await device.claim();
    } catch (error) {
      const isInUse = error instanceof UsageError && error.code === 'ERR_DEVICE_IN_USE';
      if (isInUse) await this.#tellInUse(lun, device.index);
      throw error;
    }
  }

  /** Throws UsageError 10 when the disk says that writes are lost: once, as to any other flush. */
  async #write(claim: NbdClaim | undefined, device: NbdKernelDevice): Promise<void> {
    try {
      await claim?.write();
    } catch (cause) {
      if (!(cause instanceof NbdKernelError)) throw cause;
      throw new UsageError(
        `${device.path} could not flush what was written (${cause.errno}): the ` +
          'ioError event has the words of the disk. Check what is on it.',
        { exitCode: EXIT_CODES.logoutFailed.code, code: 'ERR_FLUSH_FAILED', cause },
      );
    }
  }

  async #tellInUse(lun: number, index: number): Promise<string> {
    const holders = describeHolders(await findHolders(index));
    if (this.#inUse.get(lun) !== holders) {
      this.#inUse.set(lun, holders);
      this.#options.onInUse?.({ lun, device: `/dev/nbd${index}` }, holders);
    }
    return holders;
  }

  async pathsChanged(): Promise<void> {
    for (const [unit, { index }] of this.#devices) await this.#publish(unit, index);
  }

  async #publish(unit: LogicalUnit, index: number): Promise<void> {
    const { names } = this.#options;
    if (names === undefined) return;
    const { identifiers, vendor, product, serial } = unit.facts;
    const identifier = deviceIdentifier(this.#options.sessionId, unit.lun);
    const disk = { index, identifier, lun: unit.lun, identifiers, vendor, product, serial };
    const { portal, targetName } = names;
    const name = { ...disk, portal, targetName, otherPlaces: names.places(unit.lun) };
    this.#named.set(unit.lun, name);
    await this.#tryNames(unit.lun, () => publishNames(nbdAddon, name));
  }

  /** Warns if it fails: /run or /dev is read-only in some containers, and the device exists. */
  async #tryNames(lun: number, step: () => Promise<void>): Promise<void> {
    try {
      await step();
    } catch (error) {
      if (errnoOf(error) === '' || !(error instanceof Error)) throw error;
      this.#options.onWarning?.(`the device of LUN ${lun} has no stable names: ${error.message}`);
    }
  }

  async #withdraw(lun: number): Promise<void> {
    const name = this.#named.get(lun);
    this.#named.delete(lun);
    if (name !== undefined) await withdrawNames(nbdAddon, name);
  }

  #serve(fd: number, unit: LogicalUnit): NbdLink {
    const { resources } = this.#options;
    return new NbdServerConnection({
      fd,
      resources,
      makeServer: (driver) => {
        const partitions = () => {
          const index = this.#indexes.get(unit.lun);
          return index === undefined ? [] : partitionsOf(index);
        };
        const disk = { device: unit.queue, budget: unit.budget, partitions };
        return new NbdConnection({ pool: resources.pool, driver, disk });
      },
      onClosed: (_client, reason) => {
        if (this.#devices.has(unit)) this.#options.onLinkLost(unit, reason);
      },
    });
  }
}

function leftToTheNext(lun: number): UsageError {
  return new UsageError(`LUN ${lun} gets no device: this process leaves its devices to the next.`, {
    exitCode: EXIT_CODES.error.code,
    code: 'ERR_DEVICES_LEFT',
  });
}

/**
 * A device that was left is taken back by what is written down of its disk. Without that, as when
 * the record of a boot session is lost, its size at least has to fit. Throws UsageError 1.
 */
function connect(options: NbdDeviceOptions, index?: number): Promise<NbdKernelDevice> {
  return NbdKernelDevice.connect(nbdAddon, {
    ...options,
    ...(index === undefined ? {} : { index }),
  });
}

async function refuseShrunk(index: number, unit: LogicalUnit): Promise<void> {
  const sizeBytes = await sizeOf(index);
  if (sizeBytes <= unit.queue.sizeBytes) return;
  throw new UsageError(
    `/dev/nbd${index} was made of a disk of ${sizeBytes} bytes, and LUN ${unit.lun} has only ` +
      `${unit.queue.sizeBytes} now: it is another disk. Nothing was written. Unmount ` +
      `/dev/nbd${index} and disconnect it (\`nbd-client -d\`) to begin anew.`,
    { exitCode: EXIT_CODES.error.code, code: 'ERR_ANOTHER_DISK' },
  );
}
