import type { Duplex } from 'node:stream';
import * as z from 'zod';
import { deferred } from '../base/deferred.js';
import { ProductError } from '../base/errors.js';
import { LineSplitter } from '../base/line-splitter.js';

/** QEMU's longest answer to what is asked here has some hundred bytes. */
const MESSAGE_BYTES_MAX = 1 << 20;

/** QEMU Machine Protocol, "QMP Protocol Specification": greeting, answer, or event. */
const messageSchema = z.union([
  z.object({ QMP: z.object({ version: z.object({ qemu: z.record(z.string(), z.number()) }) }) }),
  z.object({ event: z.string(), data: z.record(z.string(), z.unknown()).default({}) }),
  z.object({ id: z.number(), error: z.object({ class: z.string(), desc: z.string() }) }),
  z.object({ id: z.number(), return: z.unknown() }),
]);

export type QmpEvent = {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
};

type Waiting = { resolve: (answer: unknown) => void; reject: (error: Error) => void };

/** The control connection of one QEMU. Its end rejects the pending commands. */
export class QmpClient {
  readonly #socket: Duplex;
  readonly #onEvent: (event: QmpEvent) => void;
  readonly #splitter = new LineSplitter(MESSAGE_BYTES_MAX);
  readonly #waiting = new Map<number, Waiting>();
  readonly #version = deferred<string>();
  #nextId = 1;
  #failure: ProductError | null = null;

  constructor(socket: Duplex, onEvent: (event: QmpEvent) => void) {
    this.#socket = socket;
    this.#onEvent = onEvent;
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    socket.on('error', (error) => this.#fail(error.message));
    socket.on('close', () => this.#fail('QEMU closed the connection'));
  }

  /** `7.2.22`: resolves with the greeting. */
  get version(): Promise<string> {
    return this.#version.promise;
  }

  /** Rejects with ProductError `ERR_QMP` when QEMU refuses, or the connection ends. */
  execute(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  #received(chunk: Buffer): void {
    if (this.#failure !== null) return;
    for (const line of this.#splitter.push(chunk)) {
      if (line === null || !this.#take(line)) {
        this.#fail('QEMU sent something that is not QMP');
        this.#socket.destroy();
        return;
      }
    }
  }

  #take(line: string): boolean {
    const parsed = messageSchema.safeParse(jsonOf(line));
    if (!parsed.success) return false;
    const message = parsed.data;
    if ('QMP' in message) {
      const { major, minor, micro } = message.QMP.version.qemu;
      this.#version.resolve(`${major}.${minor}.${micro}`);
    } else if ('event' in message) {
      this.#onEvent(message);
    } else {
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if ('error' in message) waiting?.reject(new ProductError('ERR_QMP', message.error.desc));
      else waiting?.resolve(message.return);
    }
    return true;
  }

  #fail(why: string): void {
    this.#failure ??= new ProductError('ERR_QMP', why);
    this.#version.reject(this.#failure);
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }
}

function jsonOf(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
