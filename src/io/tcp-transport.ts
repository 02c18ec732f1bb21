import { lookup } from 'node:dns/promises';
import { codeOf, LinkError, productError } from '../base/errors.js';
import type { SendQueue } from '../base/send-queue.js';
import type { SlabPool } from '../base/slab.js';
import { formatPortal, type PortalAddress } from '../iscsi/login/portal.js';
import type { LinkEnd } from '../iscsi/session/session-effect.js';
import { type NativeSocket, native, SocketEvent } from './native.js';
import type { SendBatch } from './send-batch.js';
import { errnoName, SlabSocket, type SocketUser } from './slab-socket.js';
import type { Transport, TransportAddresses, TransportOpener, TransportUser } from './transport.js';

type TcpAddress = { readonly host: string; readonly port: number };

/**
 * An address that does not answer within this time gets company by the next one of the name, so
 * that one dead address of a portal does not use up the time for a login (RFC 8305 §8 recommends
 * 250 ms between attempts and at most 2 s).
 */
const NEXT_ADDRESS_MS = 2000;
/** Addresses of one name that are tried. */
const ADDRESSES_MAX = 16;

/** Opens TCP links that share `pool` and `flushes`. */
export function tcpTransportOpener(pool: SlabPool, flushes: SendBatch): TransportOpener {
  return (portal, queue, user) => new TcpLink({ portal, queue, user, pool, flushes });
}

/** A TCP connection to a portal. */
class TcpLink implements Transport, SocketUser {
  readonly #user: TransportUser;
  readonly #portal: PortalAddress;
  readonly #connecting = new AbortController();
  #socket: SlabSocket | null = null;
  #closed = false;

  constructor(options: {
    readonly portal: PortalAddress;
    readonly queue: SendQueue;
    readonly user: TransportUser;
    readonly pool: SlabPool;
    readonly flushes: SendBatch;
  }) {
    const { portal, queue, user, pool, flushes } = options;
    this.#user = user;
    this.#portal = portal;
    connectTcp(portal, this.#connecting.signal).then(
      (fd) => {
        if (this.#closed) {
          closeDescriptor(fd);
          return;
        }
        this.#socket = new SlabSocket({ fd, pool, queue, flushes, user: this, peer: 'target' });
        user.linkOpened();
      },
      (error: unknown) => {
        const failure = productError(error);
        if (!this.#closed) user.linkFailed(failure);
      },
    );
  }

  get bytesReceivedTotal(): number {
    return this.#socket?.bytesReceivedTotal ?? 0;
  }
  get bytesSentTotal(): number {
    return this.#socket?.bytesSentTotal ?? 0;
  }

  addresses(): TransportAddresses | null {
    return this.#socket?.addresses() ?? null;
  }

  close(end: LinkEnd): void {
    this.#closed = true;
    this.#connecting.abort();
    this.#socket?.close(end);
  }

  bytesReceived(slab: number, buffer: Buffer, start: number, end: number): boolean {
    return this.#user.bytesReceived(slab, buffer, start, end);
  }

  linkLost(errno: string | null): void {
    const where = formatPortal(this.#portal);
    this.#user.linkFailed(
      errno === null
        ? new LinkError('ECONNRESET', `the target at ${where} closed the connection`)
        : new LinkError(errno, `the connection to ${where} failed (${errno})`),
    );
  }

  sent(): void {
    this.#user.allSent();
  }
}

/**
 * Opens a TCP connection: the addresses of the name one after another, each with a head start
 * before the next. Resolves to a descriptor owned by the caller, whose close resets the connection.
 * Rejects with LinkError, even if `signal` aborts.
 */
export async function connectTcp(to: TcpAddress, signal: AbortSignal): Promise<number> {
  const addresses = await resolve(to.host, signal);
  const race = new AbortController();
  const stop = () => race.abort();
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  try {
    return await firstToConnect(addresses.slice(0, ADDRESSES_MAX), to, race);
  } finally {
    signal.removeEventListener('abort', stop);
    race.abort();
  }
}

/** The first of `addresses` to be connected to; the others are given up. */
function firstToConnect(
  addresses: readonly string[],
  to: TcpAddress,
  race: AbortController,
): Promise<number> {
  return new Promise((resolvePromise, reject) => {
    let failure = new LinkError('ENOTFOUND', `${to.host} has no address`);
    let next = 0;
    let running = 0;
    let headStart: NodeJS.Timeout | undefined;
    let decided = false;
    const failed = (error: unknown) => {
      running -= 1;
      if (!(error instanceof LinkError)) {
        reject(error);
        return;
      }
      failure = error;
      startNext();
    };
    const connected = (fd: number) => {
      if (decided) {
        closeDescriptor(fd);
        return;
      }
      decided = true;
      clearTimeout(headStart);
      race.abort();
      resolvePromise(fd);
    };
    const startNext = () => {
      clearTimeout(headStart);
      const address = addresses[next];
      if (decided) return;
      if (address === undefined || race.signal.aborted) {
        if (running === 0) reject(failure);
        return;
      }
      next += 1;
      running += 1;
      if (next < addresses.length) headStart = setTimeout(startNext, NEXT_ADDRESS_MS);
      connectAddress(address, to.port, race.signal).then(connected, failed);
    };
    startNext();
  });
}

async function resolve(host: string, signal: AbortSignal): Promise<string[]> {
  let stop = () => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => reject(new LinkError('ECANCELED', `looking up ${host} was given up`));
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
  aborted.catch(() => undefined);
  try {
    const found = await Promise.race([lookup(host, { all: true }), aborted]);
    return found.map((entry) => entry.address);
  } catch (cause) {
    if (cause instanceof LinkError) throw cause;
    const errno = codeOf(cause) || 'EAI_FAIL';
    throw new LinkError(errno, `the name ${host} cannot be looked up (${errno})`, { cause });
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

function connectAddress(address: string, port: number, signal: AbortSignal): Promise<number> {
  const where = address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
  return new Promise((resolvePromise, reject) => {
    const fd = native.connectTcp(address, port);
    if (fd < 0) {
      const errno = errnoName(-fd);
      reject(new LinkError(errno, `no connection to ${where} (${errno})`));
      return;
    }
    let socket: NativeSocket | null = null;
    const fail = (errno: string) => {
      signal.removeEventListener('abort', stop);
      socket?.close();
      reject(new LinkError(errno, `no connection to ${where} (${errno})`));
    };
    const stop = () => fail('ETIMEDOUT');
    socket = new native.NativeSocket(fd, false, new Int32Array(3), (kind, value) => {
      const errno = kind === SocketEvent.error ? value : (socket?.socketError() ?? 0);
      if (errno !== 0) {
        fail(errnoName(errno));
        return;
      }
      signal.removeEventListener('abort', stop);
      resolvePromise(socket?.release() ?? -1);
    });
    socket.watchWritable(true);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}

function closeDescriptor(fd: number): void {
  new native.NativeSocket(fd, false, new Int32Array(3), () => undefined).close();
}
