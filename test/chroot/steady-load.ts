import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { NBD, RawNbd, type RawReply } from '../helpers/raw-nbd.js';

const BLOCK_BYTES = 16 << 10;
const BLOCKS = 256;
const LANES = 2;
/** Writes of a lane between two flushes. */
const FLUSH_EVERY = 16;
const RECONNECT_MS = 5;

type Fields = Parameters<RawNbd['request']>[1];

export type LoadReport = {
  readonly requests: number;
  readonly errors: number;
  /** Blocks that were not read back as they had been written. */
  readonly mismatches: number;
  readonly longestMs: number;
};

/**
 * A disk in use, as the kernel's NBD driver uses it: requests without an answer are sent again to
 * the server that takes the place of one that is gone. Each lane writes, flushes and reads back.
 */
export class SteadyLoad {
  readonly #path: string;
  readonly #lanes: Promise<void>[];
  #client: Promise<RawNbd> | null = null;
  #stopped = false;
  #requests = 0;
  #errors = 0;
  #mismatches = 0;
  #longestMs = 0;

  constructor(path: string) {
    this.#path = path;
    this.#lanes = Array.from({ length: LANES }, (_, lane) => this.#run(lane));
  }

  get requests(): number {
    return this.#requests;
  }

  async stop(): Promise<LoadReport> {
    this.#stopped = true;
    await Promise.all(this.#lanes);
    (await this.#client)?.close();
    return {
      ...{ requests: this.#requests, errors: this.#errors },
      ...{ mismatches: this.#mismatches, longestMs: this.#longestMs },
    };
  }

  async #run(lane: number): Promise<void> {
    const written = new Map<number, Buffer>();
    for (let turn = 0; !this.#stopped; turn += 1) {
      const block = Math.floor(Math.random() * BLOCKS);
      const offset = (lane * BLOCKS + block) * BLOCK_BYTES;
      const data = randomBytes(BLOCK_BYTES);
      await this.#ask(NBD.write, { offset, data });
      written.set(offset, data);
      if (turn % FLUSH_EVERY === 0) await this.#ask(NBD.flush);
      const [at = offset] = [...written.keys()].slice(turn % written.size);
      const read = await this.#ask(NBD.read, { offset: at, length: BLOCK_BYTES });
      if (!read.data.equals(written.get(at) ?? data)) this.#mismatches += 1;
    }
  }

  async #ask(type: number, fields?: Fields): Promise<RawReply> {
    const start = performance.now();
    for (;;) {
      const client = await this.#connected();
      const reply = await client.request(type, fields);
      if (reply.error === -1) {
        this.#client = null;
        continue;
      }
      this.#requests += 1;
      if (reply.error !== 0) this.#errors += 1;
      this.#longestMs = Math.max(this.#longestMs, performance.now() - start);
      return reply;
    }
  }

  #connected(): Promise<RawNbd> {
    this.#client ??= this.#connect();
    return this.#client;
  }

  async #connect(): Promise<RawNbd> {
    for (;;) {
      try {
        return await RawNbd.open(this.#path);
      } catch {
        await sleep(RECONNECT_MS);
      }
    }
  }
}
