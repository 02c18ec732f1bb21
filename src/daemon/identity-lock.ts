import { createServer, type Server } from 'node:net';

/**
 * A lock that ends with the process that holds it, also when it is killed: a listening socket in
 * the abstract namespace (unix(7)). It holds between the processes of one network namespace.
 */
export class IdentityLock {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Null when somebody, this process included, has it. */
  static take(name: string): Promise<IdentityLock | null> {
    return new Promise((resolve, reject) => {
      const server = createServer((socket) => socket.destroy());
      server.once('error', (error: NodeJS.ErrnoException) => {
        if (error.code === 'EADDRINUSE') resolve(null);
        else reject(error);
      });
      server.listen({ path: `\0iscsi-nbd/${name}` }, () => {
        server.unref();
        resolve(new IdentityLock(server));
      });
    });
  }

  release(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}
