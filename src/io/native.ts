import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { UsageError } from '../base/errors.js';
import type { SlabPool } from '../base/slab.js';

/** Kinds of event that a NativeSocket reports; see native/socket_pump.h. */
export const SocketEvent = { data: 1, end: 2, error: 3, writable: 4, accepted: 5 } as const;

/** Numeric address and port of one end of a connection. */
type SocketAddress = { readonly host: string; readonly port: number };

/** One non-blocking socket in the event loop. It owns its descriptor until `close`. */
export interface NativeSocket {
  watchReadable(on: boolean): void;
  watchWritable(on: boolean): void;
  /** The ring of triples (slab, offset, length) that `send` speaks of, from now on. */
  useTable(table: Int32Array): void;
  /**
   * Sends entries of the ring. Returns the bytes the socket took, or -errno; with fewer than asked
   * a `writable` event follows.
   */
  send(firstEntry: number, entryCount: number): number;
  /** Bytes the kernel may hold of what is sent; less where the system allows less. */
  setSendBuffer(bytes: number): void;
  /** An end of a TCP connection; null for another socket, or a closed one. */
  localAddress(): SocketAddress | null;
  remoteAddress(): SocketAddress | null;
  /** Pending error (SO_ERROR): 0 or an errno. */
  socketError(): number;
  shutDown(): void;
  /** The peer can send nothing more; what it has sent can still be received, and then the end. */
  endReceiving(): void;
  /** Stops watching and hands the descriptor to the caller. */
  release(): number;
  /** Closes; a TCP connection that was opened here is reset, and what is still unsent dropped. */
  close(): void;
  /** Closes so that all that was sent still arrives. */
  closeInOrder(): void;
}

/** What the sockets of this thread have cost since it began. */
type SocketCounters = {
  /** System calls. */
  readonly receives: number;
  readonly sends: number;
  /** Changes of what is polled for; each costs the event loop one or two system calls. */
  readonly watches: number;
  /** Waits that took the place of a turn of the event loop. */
  readonly waits: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
};

/** The part of the addon that is about sockets; the kernel's NBD has its own (nbd-netlink.ts). */
interface NativeAddon {
  readonly NativeSocket: new (
    fd: number,
    listening: boolean,
    window: Int32Array,
    onEvent: (kind: number, value: number) => void,
  ) => NativeSocket;
  setSlab(index: number, memory: Uint8Array): void;
  /** Gives the slab's pages to the system; the memory stays usable and reads as anything. */
  dropSlab(index: number): void;
  counters(): SocketCounters;
  /**
   * Returns the clock (milliseconds, monotonic). `clock` has its value at the last receipt while
   * that is dealt with, otherwise 0.
   */
  useReceiptClock(clock: Float64Array): number;
  /** How long the thread busy-polls before it sleeps, if that is faster; 0: never. */
  setBusyPoll(microseconds: number): void;
  /**
   * For tests: the part of the time in which that is chosen, by bytes a millisecond either way.
   * After `lostAfterMs` of it the thread loses its processor; 0: never.
   */
  simulateTrial(
    bytesWith: number,
    bytesWithout: number,
    milliseconds: number,
    lostAfterMs: number,
  ): number;
  /** CRC32C of bytes of a slab, from `seed` on, as a signed number. */
  crc32c(slab: number, offset: number, length: number, seed: number): number;
  /**
   * For tests: the same by table (0), by the processor's instruction (1) or by carry-less
   * multiplication of 32 (2) or 64 bytes at once (3), or the best before it that the processor has.
   */
  crc32cBy(way: number, bytes: Uint8Array, seed: number): number;
  /**
   * A descriptor that is connecting, or -errno. The address is numeric. However the descriptor is
   * closed, by the end of the process too, nothing leaves this host any more (`closeInOrder`
   * excepted).
   */
  connectTcp(address: string, port: number): number;
  /** A listening descriptor, or -errno. */
  listenUnix(path: string, mode: number): number;
  /**
   * No core file of this process is made, and no program that stores one (core(5)) is waited for.
   */
  forbidCores(): void;
  /** One datagram to a unix socket ('@': an abstract one), without waiting; 0 or -errno. */
  sendNotify(path: string, text: string): number;
}

/** How often memory that was not needed goes back to the system. */
const TRIM_MS = 5000;

/** As seen from here and from the program in one file, too: both lie two folders deep. */
const BUILT_PATH = '../../build/Release/iscsi_nbd.node';
/** What the npm package brings for this processor, which one that was compiled there replaces. */
const BROUGHT_PATH = `../../prebuilds/linux-${process.arch}/iscsi_nbd.node`;
const BUILDER_PATH = '../../scripts/addon/build.mjs';

function load(): unknown {
  const [built, brought] = [pathOf(BUILT_PATH), pathOf(BROUGHT_PATH)] as const;
  const path = existsSync(brought) && !existsSync(built) ? brought : built;
  try {
    return createRequire(import.meta.url)(path);
  } catch (cause) {
    const builder = pathOf(BUILDER_PATH);
    const nextStep = existsSync(builder)
      ? `Build it, with a C++ compiler: node ${builder}`
      : 'Install the package again.';
    throw new UsageError(
      `The native addon ${path} cannot be loaded (${textOf(cause)}). ${nextStep}`,
      { cause, exitCode: 1, code: 'ERR_ADDON' },
    );
  }
}

function pathOf(relative: string): string {
  return fileURLToPath(new URL(relative, import.meta.url));
}

/** The first line of what the loader says: after it comes where the addon was asked for. */
function textOf(cause: unknown): string {
  return (cause instanceof Error ? cause.message : String(cause)).split('\n')[0] ?? '';
}

/** Everything the addon exports; the only place that loads it. */
export const loadedAddon: unknown = load();

export const native = loadedAddon as NativeAddon;

/** Makes every slab of `pool` known to the addon. Call it before the pool has made any. */
export function shareSlabs(pool: SlabPool): void {
  pool.onMade = (index, buffer) => native.setSlab(index, buffer);
  pool.onGivenBack = (index) => native.dropSlab(index);
  setInterval(() => pool.trim(), TRIM_MS).unref();
  pool.crc32c = native.crc32c;
}
