/**
 * The plugin of CSI in this process, over the host's own mounts and a daemon, with a client. It can
 * die after any step that has an effect, and the next one finds what it left.
 */
import { join } from 'node:path';
import { CsiNode } from '../../src/csi/csi-node.js';
import { type Serving, serveCsi } from '../../src/csi/csi-server.js';
import { currentBootId } from '../../src/io/boot-id.js';
import { systemHost } from '../../src/volume/system-host.js';
import { ControlledDaemon } from '../../src/volume/volume-daemon.js';
import { VolumeRecordFiles } from '../../src/volume/volume-record.js';
import { VolumeSecretFiles } from '../../src/volume/volume-secrets.js';
import { Volumes } from '../../src/volume/volumes.js';
import { CsiClient } from '../csi/csi-client.js';
import type { DaemonProcess } from '../integration/daemon-process.js';

/** What changes something: a process that dies between two of these leaves what the first left. */
const EFFECTS = new Set([
  ...['run', 'makeFolder', 'makeFile', 'removeFolder', 'removeFile'],
  ...['login', 'rescan', 'logout', 'save', 'remove', 'optionsOf', 'forget'],
]);

type Life = { steps: number; killAt: number; isOver: boolean; readonly done: string[] };

export class MortalPlugin {
  readonly #daemon: DaemonProcess;
  #life: Life = newLife();
  #server: Serving | null = null;
  #client: CsiClient | null = null;

  constructor(daemon: DaemonProcess) {
    this.#daemon = daemon;
  }

  get client(): CsiClient {
    if (this.#client === null) throw new Error('the plugin is not started');
    return this.#client;
  }

  /** What was done since the start. */
  get effects(): readonly string[] {
    return this.#life.done;
  }

  get records(): VolumeRecordFiles {
    return new VolumeRecordFiles(join(this.#daemon.folder, 'records'));
  }

  get secretsFolder(): string {
    return join(this.#daemon.folder, 'secrets');
  }

  /** A new process in place of the one there is. */
  async start(): Promise<void> {
    await this.stop();
    this.#life = newLife();
    const life = this.#life;
    const volumes = await Volumes.open({
      host: mortal(systemHost, life),
      daemon: mortal(new ControlledDaemon(this.#daemon.control), life),
      records: mortal(this.records, life),
      secrets: mortal(new VolumeSecretFiles(this.secretsFolder), life),
      waits: { diskMsMax: 60_000, pollMs: 20 },
      bootId: await currentBootId(),
      warn: () => undefined,
    });
    const node = new CsiNode(volumes, { nodeId: 'node1', volumesMax: 0, topology: {} });
    const socketPath = join(this.#daemon.folder, 'csi.sock');
    const served = { node, controller: null, version: '0', onFailure: () => undefined };
    this.#server = await serveCsi(`unix://${socketPath}`, served);
    this.#client = new CsiClient(socketPath);
    life.done.length = 0;
  }

  /** It dies after its next `steps` effects; false if a call ended before. */
  async dies(steps: number, method: string, request: unknown): Promise<boolean> {
    this.#life.steps = 0;
    this.#life.killAt = steps;
    const code = await this.client.codeOf(method, request);
    this.#life.killAt = Number.POSITIVE_INFINITY;
    if (code !== (this.#life.isOver ? 'INTERNAL' : 'OK')) throw new Error(`${method}: ${code}`);
    return this.#life.isOver;
  }

  async stop(): Promise<void> {
    this.#client?.close();
    await this.#server?.close();
    this.#client = null;
    this.#server = null;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

function newLife(): Life {
  return { steps: 0, killAt: Number.POSITIVE_INFINITY, isOver: false, done: [] };
}

/** The same, whose calls are the steps of a life. */
function mortal<T extends object>(thing: T, life: Life): T {
  return new Proxy(thing, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== 'function' || name === 'placeOf') return bound(value, target);
      return async (...args: readonly unknown[]) => {
        if (life.isOver) throw new Error('the process is dead');
        const result: unknown = await value.apply(target, args);
        if (!EFFECTS.has(String(name))) return result;
        life.steps += 1;
        life.done.push(name === 'run' ? String(args[0]) : String(name));
        if (life.steps < life.killAt) return result;
        life.isOver = true;
        throw new Error('the process was killed');
      };
    },
  });
}

function bound(value: unknown, target: object): unknown {
  return typeof value === 'function' ? value.bind(target) : value;
}
