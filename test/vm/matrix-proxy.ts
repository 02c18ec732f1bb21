/**
 * A relay between initiators and a target that spoils bytes on their way, or takes them slowly: TCP
 * itself finds nothing wrong with them.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';

/** Longer pieces from the target are almost all data of reads. */
const DATA_BYTES_MIN = 3000;

export class Relay {
  /** How often one bit of read data is spoiled, on each connection; 0: never. */
  spoilEveryMs = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  static async listen(port: number, targetPort: number): Promise<Relay> {
    const relay = new Relay(targetPort);
    await new Promise<void>((done) => relay.#server.listen(port, '127.0.0.1', done));
    return relay;
  }

  private constructor(targetPort: number) {
    this.#server = createServer({ noDelay: true }, (near) => {
      const far = connect({ port: targetPort, host: '127.0.0.1', noDelay: true });
      let spoiledAt = 0;
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on('error', () => to.resetAndDestroy());
        from.on('close', () => {
          this.#sockets.delete(from);
          to.resetAndDestroy();
        });
        from.on('drain', () => to.resume());
        from.on('data', (bytes: Buffer) => {
          if (from === far && this.#isToSpoil(bytes, spoiledAt)) {
            spoiledAt = performance.now();
            spoil(bytes);
          }
          if (!to.write(bytes)) from.pause();
        });
      }
    });
  }

  /** Nothing that the initiators send is read: their buffers fill. */
  stopReading(isStopped: boolean): void {
    for (const socket of this.#sockets) {
      if (isStopped) socket.pause();
      else socket.resume();
    }
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #isToSpoil({ length }: Buffer, spoiledAt: number): boolean {
    const every = this.spoilEveryMs;
    return every > 0 && length >= DATA_BYTES_MIN && performance.now() - spoiledAt >= every;
  }
}

function spoil(bytes: Buffer): void {
  const at = bytes.length >> 1;
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
}
