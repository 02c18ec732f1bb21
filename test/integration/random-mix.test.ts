import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { NBD, NBD_FLAGS, RawNbd } from '../helpers/raw-nbd.js';
import { serveEmbedded, serveTgt } from '../helpers/served.js';

/** A minute where the tests are judged, seconds where they are tried. */
const SECONDS = Number(process.env['MIX_SECONDS'] ?? (process.env['CI'] ? 60 : 5));
const SEED = Number(process.env['MIX_SEED'] ?? Date.now() % 2 ** 31);
/** Pause of each worker after a request, where the machine is to be left to others. */
const PAUSE_MS = Number(process.env['MIX_PAUSE_MS'] ?? 0);
const DISK_BYTES = 32 << 20;
const CLIENTS = 6;
const REQUESTS_PER_CLIENT = 8;
const REQUEST_BLOCKS_MAX = 1500;

/** mulberry32: a small generator that a seed repeats. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What each block holds; after a trim either that or zeros. No other request uses a block in use. */
class Model {
  readonly bytes = Buffer.alloc(DISK_BYTES);
  readonly blockBytes: number;
  readonly #trimmed: Uint8Array;
  readonly #inUse: Uint8Array;

  constructor(blockBytes: number) {
    this.blockBytes = blockBytes;
    this.#trimmed = new Uint8Array(DISK_BYTES / blockBytes);
    this.#inUse = new Uint8Array(DISK_BYTES / blockBytes);
  }

  take(first: number, count: number): boolean {
    if (this.#inUse.subarray(first, first + count).includes(1)) return false;
    this.#inUse.fill(1, first, first + count);
    return true;
  }

  give(first: number, count: number): void {
    this.#inUse.fill(0, first, first + count);
  }

  written(first: number, data: Buffer): void {
    data.copy(this.bytes, first * this.blockBytes);
    this.#trimmed.fill(0, first, first + data.length / this.blockBytes);
  }

  trimmed(first: number, count: number): void {
    this.#trimmed.fill(1, first, first + count);
  }

  /** First block that is not as it should be, or -1. */
  differs(first: number, found: Buffer): number {
    const start = first * this.blockBytes;
    if (found.equals(this.bytes.subarray(start, start + found.length))) return -1;
    for (let at = 0; at < found.length; at += this.blockBytes) {
      const block = found.subarray(at, at + this.blockBytes);
      const wanted = this.bytes.subarray(start + at, start + at + this.blockBytes);
      const index = first + at / this.blockBytes;
      if (block.equals(wanted)) continue;
      if (this.#trimmed[index] === 1 && block.every((byte) => byte === 0)) continue;
      return index;
    }
    return -1;
  }
}

/** One request of the mix after another, until it is time. */
async function worker(
  client: RawNbd,
  model: Model,
  mix: { random: () => number; until: number; counts: Map<string, number> },
): Promise<void> {
  const { random } = mix;
  const blocks = DISK_BYTES / model.blockBytes;
  while (Date.now() < mix.until) {
    // Short ones mostly, long ones sometimes.
    const longest = random() < 0.9 ? 64 : REQUEST_BLOCKS_MAX;
    const count = 1 + Math.floor(random() * longest);
    const first = Math.floor(random() * (blocks - count));
    if (!model.take(first, count)) {
      await sleep(0);
      continue;
    }
    const offset = first * model.blockBytes;
    const length = count * model.blockBytes;
    const flags = random() < 0.2 ? NBD_FLAGS.fua : 0;
    const dice = random();
    let name = 'flush';
    let error = 0;
    if (dice < 0.4) {
      name = 'read';
      const reply = await client.request(NBD.read, { offset, length });
      error = reply.error;
      const wrong = error === 0 ? model.differs(first, reply.data) : -1;
      expect(wrong, `seed ${SEED}: block ${wrong} of a read at ${first}`).toBe(-1);
    } else if (dice < 0.8) {
      name = 'write';
      const data = Buffer.alloc(length);
      for (let at = 0; at < length; at += 4) data.writeUInt32LE((random() * 2 ** 32) >>> 0, at);
      ({ error } = await client.request(NBD.write, { offset, data, flags }));
      model.written(first, data);
    } else if (dice < 0.87) {
      name = 'writeZeroes';
      const noHole = random() < 0.5 ? NBD_FLAGS.noHole : 0;
      ({ error } = await client.request(NBD.writeZeroes, {
        offset,
        length,
        flags: flags | noHole,
      }));
      model.written(first, Buffer.alloc(length));
    } else if (dice < 0.94) {
      name = 'trim';
      ({ error } = await client.request(NBD.trim, { offset, length, flags }));
      model.trimmed(first, count);
    } else {
      ({ error } = await client.request(NBD.flush));
    }
    expect(error, `seed ${SEED}: ${name} at block ${first}, ${count} blocks`).toBe(0);
    mix.counts.set(name, (mix.counts.get(name) ?? 0) + 1);
    model.give(first, count);
    if (PAUSE_MS > 0) await sleep(PAUSE_MS);
  }
}

async function runMix(socket: string, blockBytes: number, disturb: () => Promise<void>) {
  const model = new Model(blockBytes);
  const until = Date.now() + SECONDS * 1000;
  const counts = new Map<string, number>();
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => RawNbd.open(socket)));
  const random = seeded(SEED);
  const workers = clients.flatMap((client) =>
    Array.from({ length: REQUESTS_PER_CLIENT }, () =>
      worker(client, model, { random, until, counts }),
    ),
  );
  const disturbing = (async () => {
    while (Date.now() < until) await disturb();
  })();
  await Promise.all([...workers, disturbing]);
  const [judge] = clients;
  for (let at = 0; at < DISK_BYTES; at += 1 << 20) {
    const { data } = await judge!.request(NBD.read, { offset: at, length: 1 << 20 });
    expect(model.differs(at / blockBytes, data), `seed ${SEED}: after all`).toBe(-1);
  }
  for (const client of clients) client.close();
  process.stdout.write(`mix: seed ${SEED}, ${JSON.stringify(Object.fromEntries(counts))}\n`);
  for (const name of ['read', 'write', 'writeZeroes', 'trim', 'flush']) {
    expect(counts.get(name)).toBeGreaterThan(10);
  }
}

const TEST_MS = SECONDS * 1000 + 60_000;

it.each([512, 4096] as const)(
  'a random mix of all requests matches the model, while links break (%i-byte blocks)',
  async (blockSizeBytes) => {
    await using served = await serveEmbedded({
      sizeBytes: DISK_BYTES,
      blockSizeBytes,
      writeCache: 'none',
      limits: { transferBlocksMax: 700, writeSameBlocksMax: 900, unmapBlocksMax: 333 },
    });
    await runMix(served.socket, blockSizeBytes, async () => {
      await sleep(700);
      served.node.dropConnections();
    });
  },
  TEST_MS,
);

it(
  'a random mix of all requests matches the model, on tgt',
  async () => {
    await using served = await serveTgt({
      sizeBytes: DISK_BYTES,
      params: { thin_provisioning: 1 },
    });
    await runMix(served.socket, 512, () => sleep(500));
  },
  TEST_MS,
);
