import { connect, createServer, type Server } from 'node:net';
import { errnoOf } from '../base/errors.js';

/** What a holder says of itself is short, and it says it at once. */
const HOLDER_BYTES_MAX = 64;
const HOLDER_MS_MAX = 1000;

/**
 * A lock that ends with the process that holds it, also when it is killed: a listening socket in
 * the abstract namespace (unix(7)). It holds between the processes of one network namespace.
 */
export class ProcessLock {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Null when somebody, this process included, has it. `holder` is told to whoever asks. */
  static take(name: string, holder = ''): Promise<ProcessLock | null> {
    return new Promise((resolve, reject) => {
      const server = createServer((socket) => {
        socket.on('error', () => socket.destroy());
        // Few bytes, which the system keeps for the asker: a release must not wait for it.
        socket.end(holder, () => socket.destroy());
      });
      server.once('error', (error) => {
        if (errnoOf(error) === 'EADDRINUSE') resolve(null);
        else reject(error);
      });
      server.listen({ path: pathOf(name) }, () => {
        server.unref();
        resolve(new ProcessLock(server));
      });
    });
  }

  /** What the holder says of itself; empty when it says nothing, or is just gone. */
  static holderOf(name: string): Promise<string> {
    return new Promise((resolve) => {
      const socket = connect({ path: pathOf(name) });
      let text = '';
      socket.setTimeout(HOLDER_MS_MAX, () => socket.destroy());
      socket.on('data', (chunk) => {
        text += chunk.toString('latin1');
        if (text.length > HOLDER_BYTES_MAX) socket.destroy();
      });
      socket.on('error', () => socket.destroy());
      socket.on('close', () => resolve(text.slice(0, HOLDER_BYTES_MAX)));
    });
  }

  release(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

function pathOf(name: string): string {
  return `\0iscsi-nbd/${name}`;
}
