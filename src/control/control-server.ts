import { mkdir } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { codeOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { listenPrivately, requireFreePath } from '../io/unix-socket-path.js';
import { type CallMethod, ControlConnection } from './control-connection.js';
import { RpcCode } from './control-protocol.js';

/** Clients at a time; others get an error and are disconnected. */
const CLIENTS_MAX = 128;
/** Clients that are being told to go; beyond that they are cut off without a word. */
const LEAVING_MAX = 128;

/** The control socket: a process that can open the path may give every order. */
export class ControlServer {
  readonly path: string;
  readonly #call: CallMethod;
  readonly #onFailure: (error: unknown) => void;
  readonly #clients = new Set<ControlConnection>();
  #leaving = 0;
  #server: Server | null = null;

  constructor(options: {
    readonly path: string;
    readonly call: CallMethod;
    readonly onFailure: (error: unknown) => void;
  }) {
    this.path = options.path;
    this.#call = options.call;
    this.#onFailure = options.onFailure;
  }

  get clientCount(): number {
    return this.#clients.size;
  }

  /** Makes the path's directory. Throws UsageError: 28 when another daemon listens there. */
  async listen(): Promise<void> {
    await mkdir(dirname(this.path), { recursive: true, mode: 0o755 }).catch((error: unknown) => {
      throw unusable(this.path, error);
    });
    await requireFreePath('--control', this.path, { server: 'daemon', code: 'ERR_CONTROL_BUSY' });
    const server = createServer({ pauseOnConnect: false }, (socket) => this.#accepted(socket));
    await listenPrivately(server, { path: this.path }).catch((error: unknown) => {
      throw unusable(this.path, error);
    });
    server.on('error', this.#onFailure);
    this.#server = server;
  }

  /** Removes the path and ends every client. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    for (const client of this.#clients) client.close();
    if (server !== null) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  #accepted(socket: Socket): void {
    const isFull = this.#clients.size >= CLIENTS_MAX;
    if (isFull && this.#leaving >= LEAVING_MAX) {
      socket.destroy();
      return;
    }
    const client = new ControlConnection({
      socket,
      call: this.#call,
      onFailure: this.#onFailure,
      onGone: () => {
        if (isFull) this.#leaving -= 1;
        else this.#clients.delete(client);
      },
    });
    if (!isFull) {
      this.#clients.add(client);
      return;
    }
    this.#leaving += 1;
    const message = `the daemon has ${CLIENTS_MAX} clients already`;
    client.sendAway(null, { code: RpcCode.tooManyClients, message });
  }
}

function unusable(path: string, cause: unknown): UsageError {
  const errno = codeOf(cause) || 'unknown';
  const isDenied = errno === 'EACCES' || errno === 'EPERM';
  const exitCode = (isDenied ? EXIT_CODES.notPermitted : EXIT_CODES.invalidUse).code;
  return new UsageError(`--control ${path} cannot be used (${errno}); choose another path.`, {
    cause,
    exitCode,
  });
}
