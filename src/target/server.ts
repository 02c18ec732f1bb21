import { randomBytes } from 'node:crypto';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '../base/clock.js';
import type { TargetNode } from './target.js';

/** Bytes waiting in one socket beyond which the initiator is not read any more. */
const UNSENT_BYTES_MAX = 8 << 20;

/** What happens to new TCP connections: served, accepted and left silent, or reset. */
type Admission = 'serve' | 'hold' | 'refuse';

/** The target's clock; timers do not keep the process alive. */
const systemClock: Clock = {
  nowMs: () => performance.now(),
  at(atMs, action) {
    const timer = setTimeout(action, Math.max(0, atMs - performance.now()));
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** A listening TCP socket with a target behind it. */
export class TargetServer {
  readonly host: string;
  #port = 0;
  #server: Server | null = null;
  #admission: Admission = 'serve';
  #frozen = false;
  readonly #node: TargetNode;
  readonly #links = new Set<Link>();
  readonly #silent = new Set<Socket>();

  constructor(node: TargetNode, host: string) {
    this.#node = node;
    this.host = host;
  }

  get port(): number {
    return this.#port;
  }

  /** `host:port`, as a portal is written. */
  get portal(): string {
    return this.host.includes(':') ? `[${this.host}]:${this.#port}` : `${this.host}:${this.#port}`;
  }

  /** Listens again on the same port, or for the first time on `port`. */
  async listen(port: number = this.#port): Promise<void> {
    const server = createServer({ noDelay: true }, (socket) => this.#accepted(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host: this.host, port }, () => resolve());
    });
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  /** No initiator can connect any more (connection refused); open links stay. */
  async stopListening(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    // `close` calls back only when the last link is gone, but stops listening at once.
    server?.close();
    await Promise.resolve();
  }

  /** New connections are accepted and never answered (`hold`), or reset (`refuse`). */
  pauseAccept(how: 'hold' | 'refuse' = 'hold'): void {
    this.#admission = how;
  }

  /** New connections are served again; the held ones are reset. */
  resumeAccept(): void {
    this.#admission = 'serve';
    for (const socket of this.#silent) socket.destroy();
    this.#silent.clear();
  }

  /** A silent network: nothing is read or written any more, and no link breaks. */
  freeze(): void {
    this.#frozen = true;
    for (const link of this.#links) link.freeze(true);
  }

  thaw(): void {
    this.#frozen = false;
    for (const link of this.#links) link.freeze(false);
  }

  /** Every link is reset. */
  dropConnections(): void {
    this.#node.dropConnections();
    for (const socket of this.#silent) socket.destroy();
    this.#silent.clear();
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    this.dropConnections();
    for (const link of this.#links) link.destroy();
    if (server === null) return;
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  #accepted(socket: Socket): void {
    if (this.#admission === 'serve') {
      const link = new Link(socket, this.#node, () => this.#links.delete(link));
      this.#links.add(link);
      if (this.#frozen) link.freeze(true);
      return;
    }
    socket.on('error', () => socket.destroy());
    if (this.#admission === 'refuse') {
      socket.resetAndDestroy();
      return;
    }
    socket.on('close', () => this.#silent.delete(socket));
    this.#silent.add(socket);
  }
}

/** One socket and its connection: what is sent in one turn of the loop leaves in one write. */
class Link {
  readonly #socket: Socket;
  readonly #connection: ReturnType<TargetNode['connect']>;
  #corked = false;
  #frozen = false;

  constructor(socket: Socket, node: TargetNode, gone: () => void) {
    this.#socket = socket;
    const localAddress = (socket.localAddress ?? '').replace(/^::ffff:/, '');
    this.#connection = node.connect(
      (bytes) => this.#send(bytes),
      (end) => {
        if (end === 'dropped') socket.resetAndDestroy();
        else this.#finish();
      },
      { localAddress, localPort: socket.localPort ?? 0 },
    );
    socket.on('data', (bytes) => this.#connection.receive(bytes));
    socket.on('drain', () => {
      if (!this.#frozen) socket.resume();
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      node.forget(this.#connection);
      gone();
    });
  }

  freeze(frozen: boolean): void {
    this.#frozen = frozen;
    if (frozen) {
      this.#socket.pause();
    } else {
      this.#flush();
      this.#socket.resume();
    }
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #send(bytes: Uint8Array): void {
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      process.nextTick(() => {
        if (!this.#frozen) this.#flush();
      });
    }
    this.#socket.write(bytes);
    if (this.#socket.writableLength > UNSENT_BYTES_MAX) this.#socket.pause();
  }

  #flush(): void {
    if (!this.#corked) return;
    this.#corked = false;
    this.#socket.uncork();
  }

  /** FIN after the last answer; a peer that keeps its half open does not keep ours. */
  #finish(): void {
    this.#socket.end();
    if (!this.#frozen) this.#flush();
    this.#socket.resume();
  }
}

/** Serves `node` on TCP; port 0 takes a free one. */
export async function startTargetServer(
  node: TargetNode,
  options: { readonly host?: string; readonly port?: number } = {},
): Promise<TargetServer> {
  node.state.clock ??= systemClock;
  node.state.randomBytes ??= randomBytes;
  const server = new TargetServer(node, options.host ?? '127.0.0.1');
  await server.listen(options.port ?? 0);
  return server;
}
