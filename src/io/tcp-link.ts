import { lookup } from 'node:dns/promises';
import { LinkError } from '../base/errors.js';
import { type NativeSocket, native, SocketEvent } from './native.js';
import { errnoName } from './pumped-socket.js';

export type TcpAddress = { readonly host: string; readonly port: number };

/**
 * Opens a TCP connection: every address of the name is tried in turn. Resolves to a descriptor
 * owned by the caller. Rejects with LinkError, also when `signal` aborts.
 */
export async function connectTcp(to: TcpAddress, signal: AbortSignal): Promise<number> {
  const addresses = await resolve(to.host, signal);
  let failure = new LinkError('ENOTFOUND', `${to.host} has no address`);
  for (const address of addresses) {
    try {
      return await connectAddress(address, to.port, signal);
    } catch (error) {
      if (!(error instanceof LinkError)) throw error;
      failure = error;
      if (signal.aborted) break;
    }
  }
  throw failure;
}

async function resolve(host: string, signal: AbortSignal): Promise<string[]> {
  const aborted = new Promise<never>((_resolve, reject) => {
    const stop = () => reject(new LinkError('ECANCELED', `looking up ${host} was given up`));
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
  aborted.catch(() => undefined);
  try {
    const found = await Promise.race([lookup(host, { all: true }), aborted]);
    return found.map((entry) => entry.address);
  } catch (cause) {
    if (cause instanceof LinkError) throw cause;
    const errno = (cause as NodeJS.ErrnoException).code ?? 'EAI_FAIL';
    throw new LinkError(errno, `the name ${host} cannot be looked up (${errno})`, { cause });
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
