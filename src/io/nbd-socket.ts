import { access, constants, lstat, mkdtemp, rename, rm, rmdir, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { codeOf, UsageError } from '../base/errors.js';
import { type NativeSocket, native, SocketEvent } from './native.js';
import {
  NbdServerConnection,
  type NbdServerFactory,
  type SocketResources,
} from './nbd-server-connection.js';
import { errnoName } from './slab-socket.js';
import { freeSocketPath } from './unix-socket-path.js';

/** Clients of one socket at a time. */
const CLIENTS_MAX = 256;
/** Time a client has for its handshake. */
const HANDSHAKE_MS_MAX = 30_000;
/** A listener without a descriptor for its next client tries again after so long. */
const ACCEPT_RETRY_MS = 1000;
/** Only the owner may use the disk. */
const SOCKET_MODE = 0o600;

/**
 * NBD exports on a unix socket. The path appears when `listen` resolves, complete and ready, and
 * goes with `close`.
 */
export class NbdSocketServer {
  readonly path: string;
  readonly #resources: SocketResources;
  readonly #makeServer: NbdServerFactory;
  readonly #onClientClosed: (reason: string) => void;
  readonly #clients = new Set<NbdServerConnection>();
  #listener: NativeSocket | null = null;
  /** Which file the socket is: its path may have become another server's. */
  #inode: number | null = null;
  #onEmpty: () => void = () => undefined;

  constructor(options: {
    readonly path: string;
    readonly resources: SocketResources;
    readonly makeServer: NbdServerFactory;
    readonly onClientClosed?: (reason: string) => void;
  }) {
    this.path = resolve(options.path);
    this.#resources = options.resources;
    this.#makeServer = options.makeServer;
    this.#onClientClosed = options.onClientClosed ?? (() => undefined);
  }

  get clientCount(): number {
    return this.#clients.size;
  }

  /** Throws UsageError when the path cannot be used, exit code 28 when another server has it. */
  async listen(): Promise<void> {
    await refuseTakenPath(this.path);
    const parent = dirname(this.path);
    const directory = await mkdtemp(join(parent, '.iscsi-nbd-')).catch((cause: unknown) => {
      throw unusable(this.path, codeOf(cause) || 'EIO');
    });
    const temporary = join(directory, 's');
    try {
      const fd = native.listenUnix(temporary, SOCKET_MODE);
      if (fd < 0) throw unusable(this.path, errnoName(-fd));
      this.#listener = new native.NativeSocket(fd, true, new Int32Array(3), (kind, value) => {
        if (kind === SocketEvent.accepted) this.#accepted(value);
        else this.#pauseAccepting();
      });
      if (Buffer.byteLength(this.path) > 107) throw unusable(this.path, 'ENAMETOOLONG');
      this.#inode = (await lstat(temporary)).ino;
      await rename(temporary, this.path);
      this.#listener.watchReadable(true);
    } catch (error) {
      this.#listener?.close();
      this.#listener = null;
      await rm(temporary, { force: true });
      throw error;
    } finally {
      await rmdir(directory).catch(() => undefined);
    }
  }

  /** Stops accepting, removes the path, ends every client once it has what was answered. */
  async close(reason: string): Promise<void> {
    if (this.#listener === null) return;
    this.#listener.close();
    this.#listener = null;
    const found = await lstat(this.path).catch(() => null);
    if (found?.ino === this.#inode) await unlink(this.path).catch(() => undefined);
    for (const client of [...this.#clients]) client.drain(reason);
    if (this.#clients.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
    });
  }

  /** The process has no descriptor left, and the listener would tell so without an end. */
  #pauseAccepting(): void {
    this.#listener?.watchReadable(false);
    setTimeout(() => this.#listener?.watchReadable(true), ACCEPT_RETRY_MS).unref();
  }

  #accepted(fd: number): void {
    const client = new NbdServerConnection({
      fd,
      resources: this.#resources,
      makeServer: this.#makeServer,
      onClosed: (closed, reason) => {
        clearTimeout(deadline);
        this.#clients.delete(closed);
        if (this.#clients.size === 0) this.#onEmpty();
        this.#onClientClosed(reason);
      },
    });
    const deadline = setTimeout(() => {
      if (client.connection.isHandshaking) client.close('no handshake in time');
    }, HANDSHAKE_MS_MAX);
    this.#clients.add(client);
    if (this.#clients.size > CLIENTS_MAX) client.close('too many clients');
  }
}

/**
 * Throws UsageError where `listen` would: a path is free when its directory can be written and
 * nothing exists there, or the socket of a server that has died, which is removed.
 */
export async function refuseTakenPath(path: string): Promise<void> {
  await access(dirname(path), constants.W_OK | constants.X_OK).catch((cause: unknown) => {
    throw unusable(path, codeOf(cause) || 'EIO');
  });
  const fault = await freeSocketPath(path);
  if (fault === 'file') {
    throw new UsageError(
      `--socket ${path}: there is a file of that name that is not a socket; ` +
        'choose another path or remove it',
      { code: 'ERR_SOCKET_PATH' },
    );
  }
  if (fault === 'busy') {
    throw new UsageError(
      `--socket ${path}: another server is listening there; stop it or choose another path`,
      { code: 'ERR_SOCKET_BUSY', exitCode: 28 },
    );
  }
}

function unusable(path: string, errno: string): UsageError {
  const advice: Record<string, string> = {
    ENOENT: `the directory ${dirname(path)} does not exist; make it first`,
    ENOTDIR: `${dirname(path)} is not a directory; choose another path`,
    EROFS: `${dirname(path)} is read-only; choose another place`,
    EACCES: `no permission to write in ${dirname(path)}; choose another place`,
    EPERM: `no permission to write in ${dirname(path)}; choose another place`,
    ENAMETOOLONG: 'unix socket paths have at most 107 bytes; choose a shorter one',
  };
  const why = advice[errno] ?? `the system says ${errno}`;
  const exitCode = errno === 'EACCES' || errno === 'EPERM' ? 13 : 7;
  return new UsageError(`--socket ${path}: ${why}`, {
    code: 'ERR_SOCKET_PATH',
    exitCode,
  });
}
