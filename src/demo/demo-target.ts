import { randomInt } from 'node:crypto';
import { errnoOf } from '../base/errors.js';
import { TargetDisk } from '../target/disk.js';
import { startTargetServer, type TargetServer } from '../target/server.js';
import { TargetNode } from '../target/target.js';

/** Below the range Linux takes for outgoing connections, which could take it in the outage. */
const PORT_FIRST = 20_000;
const PORT_LAST = 30_000;
const PORT_TRIES_MAX = 20;

/** The embedded target of the demo: one disk in memory behind LUN 0, on a port of loopback. */
export class DemoTarget {
  readonly disk: TargetDisk;
  readonly name: string;
  readonly #node: TargetNode;
  readonly #server: TargetServer;

  private constructor(name: string, disk: TargetDisk, node: TargetNode, server: TargetServer) {
    this.name = name;
    this.disk = disk;
    this.#node = node;
    this.#server = server;
  }

  static async start(name: string, sizeBytes: number): Promise<DemoTarget> {
    const disk = TargetDisk.ram({ sizeBytes });
    const node = new TargetNode({
      targets: [{ name, luns: { 0: disk } }],
      negotiation: { defaultTime2Wait: 0 },
    });
    for (let tries = 1; ; tries += 1) {
      try {
        const port = randomInt(PORT_FIRST, PORT_LAST);
        return new DemoTarget(name, disk, node, await startTargetServer(node, { port }));
      } catch (error) {
        if (errnoOf(error) !== 'EADDRINUSE' || tries === PORT_TRIES_MAX) throw error;
      }
    }
  }

  get host(): string {
    return this.#server.host;
  }
  get port(): number {
    return this.#server.port;
  }
  get portal(): string {
    return this.#server.portal;
  }
  /** What the initiator did against the RFC, as this target sees it. */
  get violations(): readonly string[] {
    return this.#node.stats.violations;
  }
  get logouts(): number {
    return this.#node.stats.logouts;
  }
  get sessionCount(): number {
    return this.#node.sessions.length;
  }
  /** ISID of the one session there is, in hexadecimal digits. */
  get isid(): string {
    return this.#node.sessions[0]?.isid.toString('hex') ?? '';
  }

  /** As when the process of a target dies: nothing listens, sessions and tasks are gone. */
  async stop(): Promise<void> {
    const closing = this.#server.close();
    this.#node.restart();
    await closing;
  }

  /** Listens again on the same port, with the same disk. */
  startAgain(): Promise<void> {
    return this.#server.listen();
  }

  async close(): Promise<void> {
    await this.#server.close();
    this.disk.close();
  }
}
