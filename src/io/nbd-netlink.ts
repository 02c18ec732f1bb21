import { errnoOf, ProductError } from '../base/errors.js';

/**
 * The addon's calls for kernel NBD devices, typed. Every promise runs on a thread of its own and
 * rejects with an Error in Node's shape of a failed system call: `code` is the errno name, `errno`
 * its number and `syscall` the call or netlink command. Sizes are bytes below 2^53.
 */
export interface NbdAddon {
  nbdResolveFamily(): Promise<{ readonly id: number }>;
  /** Resolves with the index of the device. The caller keeps owning `socketFd`. */
  nbdConnect(request: NbdConnectRequest): Promise<number>;
  nbdReconfigure(request: NbdReconfigureRequest): Promise<void>;
  nbdDisconnect(index: number): Promise<void>;
  nbdStatus(index?: number): Promise<readonly NbdStatus[]>;
  /** `EBUSY` while mounted or held. The descriptor is given back with `closeDevice`. */
  openExclusive(path: string): Promise<number>;
  syncDevice(fd: number): Promise<void>;
  closeDevice(fd: number): Promise<void>;
  setReadOnly(path: string, readOnly: boolean): Promise<void>;
  writeAttribute(path: string, text: string): Promise<void>;
  makeBlockNode(path: string, major: number, minor: number): Promise<void>;
  /** Ours (non-blocking) and the kernel's end, both close-on-exec. */
  socketPair(): [ours: number, kernels: number];
  /** Returns the send buffer in force, which the kernel counts twice. */
  setSocketBuffers(fd: number, bytes: number): number;
  /** The other end is gone and nothing is left to read; nothing is consumed. */
  isAtEnd(fd: number): boolean;
  closeFd(fd: number): void;
  /** For the calling thread; needs CAP_SYS_RESOURCE. */
  setIoFlusher(): void;
  /** For all threads of this process; numbers below 8192. */
  setCpuAffinity(processors: readonly number[]): void;
  /** For the calling thread, and those that it starts. */
  setThreadAffinity(processors: readonly number[]): void;
  /** The calling thread's number in /proc/self/task. */
  threadId(): number;
}

interface NbdConnectRequest {
  readonly index?: number;
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  readonly serverFlags: number;
  readonly clientFlags: number;
  readonly deadConnTimeoutSeconds: number;
  /** 1 to 255 bytes. */
  readonly identifier: string;
  readonly socketFd: number;
}

interface NbdReconfigureRequest {
  readonly index: number;
  readonly identifier: string;
  readonly sizeBytes?: number;
  readonly deadConnTimeoutSeconds?: number;
  readonly socketFd?: number;
}

interface NbdStatus {
  readonly index: number;
  readonly connected: boolean;
}

/** The kernel refused something about a device that it should have granted. */
export class NbdKernelError extends ProductError {
  /** Errno name, e.g. `EINVAL`. */
  readonly errno: string;

  constructor(errno: string, message: string, options?: ErrorOptions) {
    super('ERR_NBD_KERNEL', message, options);
    this.errno = errno;
  }
}

/** `doing` says what was tried, as in "setting the size of /dev/nbd0". */
export function toNbdKernelError(doing: string, cause: unknown): unknown {
  const errno = errnoOf(cause);
  if (errno === '' || !(cause instanceof Error)) return cause;
  return new NbdKernelError(
    errno,
    `${doing} failed: ${cause.message}. The kernel log (dmesg) has the reason.`,
    { cause },
  );
}
