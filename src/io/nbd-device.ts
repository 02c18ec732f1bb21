import { setTimeout as delay } from 'node:timers/promises';
import { errnoOf, UsageError } from '../base/errors.js';
import { type NbdAddon, NbdKernelError, toNbdKernelError } from './nbd-netlink.js';
import {
  applyQueueSettings,
  describeHolders,
  devicePath,
  ensureNode,
  findHolders,
  sizeOf,
} from './nbd-sysfs.js';

/** Transmission flags of the NBD protocol that the driver takes as SERVER_FLAGS. */
export const NBD_SERVER_FLAG = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  flush: 1 << 2,
  fua: 1 << 3,
  rotational: 1 << 4,
  trim: 1 << 5,
  writeZeroes: 1 << 6,
  canMultiConn: 1 << 8,
} as const;

/** Our end of a device's connection, as the serving process owns it. */
export interface NbdLink {
  /** `shutdown(2)` of both directions, at once; nothing more is read. */
  shutDown(): void;
  /** Answers what the kernel has asked, as far as that takes no longer than a second, and ends. */
  complete(): Promise<void>;
}

/**
 * Takes the descriptor of our end (non-blocking; owned by the callee from here on) and starts to
 * answer requests on it at once. It must never open the device itself.
 */
type ServeLink = (fd: number) => NbdLink;

export interface NbdDeviceOptions {
  /** Bytes, a multiple of `blockSizeBytes`. */
  readonly sizeBytes: number;
  /** 512 to 4096, a power of two. */
  readonly blockSizeBytes: number;
  /** Bits of `NBD_SERVER_FLAG`. */
  readonly serverFlags: number;
  /** Names the device over the death of this process; 1 to 255 bytes. */
  readonly identifier: string;
  /** How long requests wait for a new link when the old one has died. */
  readonly deadConnTimeoutSeconds: number;
  /** After how long a request in flight is sent again on a new link. */
  readonly ioTimeoutMs?: number;
  /** Largest request wanted; the driver's own limit cuts it. */
  readonly maxSectorsKb?: number;
  readonly serve: ServeLink;
}

/** A device that no other process can open meanwhile; the kernel lets go of it with `release`. */
export interface NbdClaim {
  /** Writes what the kernel has cached; waits while the link is down. Throws NbdKernelError. */
  write(): Promise<void>;
  disconnect(): Promise<void>;
  release(): Promise<void>;
}

/** Between the survival time of a request and the load of needless checks. */
const IO_TIMEOUT_DEFAULT_MS = 1500;
const MAX_SECTORS_DEFAULT_KB = 1024;
/** Room for several of the largest requests, so that one write takes a whole reply. */
const SOCKET_BUFFER_BYTES = 8 << 20;
/** The kernel notices a dead process in milliseconds; a live one keeps its link. */
const TAKEOVER_MAX_MS = 5000;
const TAKEOVER_RETRY_MS = 20;

/**
 * One `/dev/nbdX` with one connection. Its calls are for the control path; none of them opens the
 * device on the calling thread, and each may take as long as the link is down.
 */
export class NbdKernelDevice {
  readonly index: number;
  readonly path: string;
  readonly identifier: string;
  /** One sentence for each queue setting that the kernel refused; the device works without. */
  settingsRefused: readonly string[] = [];
  readonly #addon: NbdAddon;
  #sizeBytes: number;
  #readOnly: boolean;
  #link: NbdLink | null = null;
  #state: 'connected' | 'disconnected' = 'connected';

  private constructor(addon: NbdAddon, index: number, options: NbdDeviceOptions) {
    this.#addon = addon;
    this.index = index;
    this.path = devicePath(index);
    this.identifier = options.identifier;
    this.#sizeBytes = options.sizeBytes;
    this.#readOnly = (options.serverFlags & NBD_SERVER_FLAG.readOnly) !== 0;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get readOnly(): boolean {
    return this.#readOnly;
  }

  /**
   * Makes a new device, with the kernel's choice of index unless one is given.
   *
   * Throws UsageError: 28 when the index is in use, 13 without the right to do this. When it
   * rejects after `serve` was called, the link has been shut down.
   */
  static async connect(
    addon: NbdAddon,
    options: NbdDeviceOptions & { readonly index?: number },
  ): Promise<NbdKernelDevice> {
    checkOptions(options);
    const [fd, kernelFd] = openPair(addon);
    let index: number;
    try {
      index = await addon.nbdConnect({
        ...(options.index === undefined ? {} : { index: options.index }),
        sizeBytes: options.sizeBytes,
        blockSizeBytes: options.blockSizeBytes,
        serverFlags: options.serverFlags | NBD_SERVER_FLAG.hasFlags,
        clientFlags: 0,
        deadConnTimeoutSeconds: options.deadConnTimeoutSeconds,
        identifier: options.identifier,
        socketFd: kernelFd,
      });
    } catch (error) {
      addon.closeFd(fd);
      throw explainConnect(error, options.index);
    } finally {
      // A copy of the kernel's end left open here would hide our death from the kernel.
      addon.closeFd(kernelFd);
    }
    const device = new NbdKernelDevice(addon, index, options);
    device.#link = options.serve(fd);
    try {
      await device.#settle(options);
    } catch (error) {
      await device.#endLinkAndDisconnect();
      throw error;
    }
    return device;
  }

  /**
   * Takes back a device that a process before this one left behind (`findByIdentifier`). The
   * requests it had in flight come again on the new link.
   *
   * Throws UsageError 28 when a living process still serves the device.
   */
  static async takeOver(
    addon: NbdAddon,
    options: NbdDeviceOptions & { readonly index: number },
  ): Promise<NbdKernelDevice> {
    checkOptions(options);
    const device = new NbdKernelDevice(addon, options.index, options);
    try {
      await device.reconnect(options.serve, options.deadConnTimeoutSeconds);
      await device.#settle(options);
    } catch (error) {
      device.leave();
      throw error;
    }
    return device;
  }

  /**
   * Gives the device a new link after the old one died. The kernel answers success even while the
   * old link seems alive to it, and then drops the new one; so this asks until the link stays.
   */
  async reconnect(serve: ServeLink, deadConnTimeoutSeconds?: number): Promise<void> {
    for (let waitedMs = 0; waitedMs <= TAKEOVER_MAX_MS; waitedMs += TAKEOVER_RETRY_MS) {
      const fd = await this.#offerLink(deadConnTimeoutSeconds);
      if (fd !== null) {
        this.#link = serve(fd);
        // Setting a size may wait for requests, and those may be held for a session to come.
        if ((await sizeOf(this.index)) !== this.#sizeBytes) await this.resize(this.#sizeBytes);
        return;
      }
      await delay(TAKEOVER_RETRY_MS);
    }
    throw new UsageError(
      `${this.path} (${this.identifier}) still has a living connection after ` +
        `${TAKEOVER_MAX_MS} ms: another process serves it. Stop that process first.`,
      { exitCode: 28 },
    );
  }

  /** Tells the kernel a new size in bytes; it announces it to the device's users. */
  async resize(sizeBytes: number): Promise<void> {
    try {
      const { index, identifier } = this;
      await this.#addon.nbdReconfigure({ index, identifier, sizeBytes });
    } catch (error) {
      throw toNbdKernelError(`setting the size of ${this.path} to ${sizeBytes} bytes`, error);
    }
    this.#sizeBytes = sizeBytes;
  }

  /** Makes the kernel refuse writes, or allow them again. Waits while the link is down. */
  async setReadOnly(readOnly: boolean): Promise<void> {
    try {
      await this.#addon.setReadOnly(this.path, readOnly);
      this.#readOnly = readOnly;
    } catch (error) {
      throw toNbdKernelError(`making ${this.path} ${readOnly ? 'read-only' : 'writable'}`, error);
    }
  }

  /**
   * Removes the device. Without `force` only if it is not in use, and with all its data written:
   * this waits while the link is down. With `force` at once: waiting requests fail with EIO, and
   * while the device is held open its index stays busy (`isConfigured`). A forced call may
   * overtake one that waits.
   *
   * Throws UsageError 28 naming who holds the device; NbdKernelError when its data could not be
   * written. In both cases it keeps working.
   */
  async disconnect(options: { readonly force: boolean }): Promise<void> {
    if (this.#state === 'disconnected') return;
    if (options.force) {
      await this.#endLinkAndDisconnect();
      return;
    }
    const claim = await this.claim();
    try {
      await claim.write();
      await claim.disconnect();
    } finally {
      await claim.release();
    }
  }

  /**
   * Opens the device for us alone: no process can mount it, and dirty it, from now on. Throws
   * UsageError 28 naming who holds it.
   */
  async claim(): Promise<NbdClaim> {
    const fd = await this.#openExclusive();
    return {
      write: async () => {
        try {
          await this.#addon.syncDevice(fd);
        } catch (error) {
          throw toNbdKernelError(`writing the cached data of ${this.path}`, error);
        }
      },
      disconnect: () => this.#endLinkAndDisconnect(),
      release: () => this.#addon.closeDevice(fd),
    };
  }

  /**
   * Ends the link and leaves the device as it is: its requests wait for the process that takes it
   * over. A request that is being carried out is carried out again then.
   */
  leave(): void {
    this.#state = 'disconnected';
    this.#link?.shutDown();
    this.#link = null;
  }

  /**
   * The same, once what the kernel has asked is answered: it sends a request that was on the link
   * again only after `ioTimeoutMs`, rounded up to a second, but one that waits for a link at once.
   */
  async leaveInOrder(): Promise<void> {
    this.#state = 'disconnected';
    await this.#link?.complete();
    this.leave();
  }

  async #openExclusive(): Promise<number> {
    try {
      return await this.#addon.openExclusive(this.path);
    } catch (error) {
      if (errnoOf(error) !== 'EBUSY') throw toNbdKernelError(`opening ${this.path}`, error);
      const users = describeHolders(await findHolders(this.index));
      throw new UsageError(
        `${this.path} is in use: ${users}. Unmount or release it first, or use --force and lose ` +
          'what has not been written.',
        { exitCode: 28, cause: error, code: 'ERR_DEVICE_IN_USE' },
      );
    }
  }

  /**
   * Our end is shut down before DISCONNECT. The kernel sends a farewell on the link, and if a full
   * socket is not read it waits there, with the lock that every netlink command needs.
   */
  async #endLinkAndDisconnect(): Promise<void> {
    if (this.#state === 'disconnected') return;
    this.#state = 'disconnected';
    this.#link?.shutDown();
    this.#link = null;
    try {
      await disconnectIndex(this.#addon, this.index);
    } catch (error) {
      this.#state = 'connected';
      throw error;
    }
  }

  /** Offers the kernel a link; the descriptor of our end, or null when it did not want it. */
  async #offerLink(deadConnTimeoutSeconds: number | undefined): Promise<number | null> {
    const addon = this.#addon;
    const [fd, kernelFd] = openPair(addon);
    try {
      await addon.nbdReconfigure({
        index: this.index,
        identifier: this.identifier,
        ...(deadConnTimeoutSeconds === undefined ? {} : { deadConnTimeoutSeconds }),
        socketFd: kernelFd,
      });
    } catch (error) {
      addon.closeFd(fd);
      throw toNbdKernelError(`giving ${this.path} (${this.identifier}) a new link`, error);
    } finally {
      addon.closeFd(kernelFd);
    }
    if (!addon.isAtEnd(fd)) return fd;
    addon.closeFd(fd);
    return null;
  }

  async #settle(options: NbdDeviceOptions): Promise<void> {
    this.settingsRefused = await applyQueueSettings(this.#addon, this.index, {
      ioTimeoutMs: options.ioTimeoutMs ?? IO_TIMEOUT_DEFAULT_MS,
      maxSectorsKb: options.maxSectorsKb ?? MAX_SECTORS_DEFAULT_KB,
      rotational: (options.serverFlags & NBD_SERVER_FLAG.rotational) !== 0,
    });
    await ensureNode(this.#addon, this.index);
  }
}

/** Removes a device that no process serves, as one left behind and no longer wanted. */
export async function disconnectIndex(addon: NbdAddon, index: number): Promise<void> {
  try {
    await addon.nbdDisconnect(index);
  } catch (error) {
    throw toNbdKernelError(`disconnecting ${devicePath(index)}`, error);
  }
}

function openPair(addon: NbdAddon): [fd: number, kernelFd: number] {
  const pair = addon.socketPair();
  for (const fd of pair) addon.setSocketBuffers(fd, SOCKET_BUFFER_BYTES);
  return pair;
}

function checkOptions(options: NbdDeviceOptions): void {
  const { sizeBytes, blockSizeBytes } = options;
  const powerOfTwo = (blockSizeBytes & (blockSizeBytes - 1)) === 0;
  if (!powerOfTwo || blockSizeBytes < 512 || blockSizeBytes > 4096) {
    throw new NbdKernelError(
      'EINVAL',
      `block size ${blockSizeBytes}: the kernel's NBD driver takes 512, 1024, 2048 and 4096 bytes`,
    );
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % blockSizeBytes !== 0) {
    throw new NbdKernelError(
      'EINVAL',
      `size ${sizeBytes} bytes: it must be a positive multiple of ${blockSizeBytes} below 2^53`,
    );
  }
}

function explainConnect(error: unknown, index: number | undefined): unknown {
  const errno = errnoOf(error);
  const name = index === undefined ? 'a new NBD device' : devicePath(index);
  if (errno === 'EBUSY' && index !== undefined) {
    return new UsageError(
      `${name} is connected already, or was disconnected while a process still holds it open. ` +
        'Choose another device, or release this one.',
      { exitCode: 28, cause: error },
    );
  }
  if (errno === 'EPERM') {
    return new UsageError(
      `The kernel does not let this process connect ${name}: it takes CAP_SYS_ADMIN outside of ` +
        'any user namespace. Run as root on the host.',
      { exitCode: 13, cause: error },
    );
  }
  return toNbdKernelError(`connecting ${name}`, error);
}
