import { COMMAND, FLAG, type ModelClient, type ModelReply } from './model-client.js';
import type { Seeded } from './seeded.js';
import type { World } from './world.js';

export const BLOCK_BYTES = 512;

/**
 * A user who writes and reads ranges of blocks at random, several at a time, and knows what each
 * block holds. Ranges that are under way never overlap, so that the order of what is under way does
 * not matter; those that have ended overlap all the time.
 */
export class BlockUser {
  /** What the disk has to hold. */
  readonly content: Buffer;
  /** What was wrong, in words. */
  readonly faults: string[] = [];
  requests = 0;
  readonly #world: World;
  readonly #random: Seeded;
  readonly #blocks: number;
  readonly #busy = new Set<number>();
  #client: ModelClient;
  #underWay = 0;
  #stamp = 0;

  constructor(world: World, random: Seeded) {
    this.#world = world;
    this.#random = random;
    this.content = Buffer.alloc(world.disk.sizeBytes);
    this.#blocks = world.disk.sizeBytes / BLOCK_BYTES;
    this.#client = world.newClient();
  }

  /** The kernel sends again what the process before did not answer: that is not modelled here. */
  async serverReplaced(): Promise<void> {
    this.#client = this.#world.newClient();
    this.#busy.clear();
    this.#underWay = 0;
  }

  get isQuiet(): boolean {
    return this.#underWay === 0;
  }

  /** One more request of any kind. */
  ask(): void {
    const random = this.#random;
    const length = random.whole(1, random.chance(0.1) ? 64 : 8);
    const first = random.whole(0, this.#blocks - length);
    for (let block = first; block < first + length; block += 1) {
      if (this.#busy.has(block)) return;
    }
    if (random.chance(0.25)) this.#read(first, length);
    else if (random.chance(0.04)) this.flush();
    else this.#write(first, length);
  }

  flush(): void {
    this.#send({ command: COMMAND.flush, flags: 0, offset: 0, length: 0 }, [0, 0], () => undefined);
  }

  readAll(): void {
    for (let block = 0; block < this.#blocks; block += 64) this.#read(block, 64);
  }

  #read(first: number, length: number): void {
    const [offset, bytes] = [first * BLOCK_BYTES, length * BLOCK_BYTES];
    const request = { command: COMMAND.read, flags: 0, offset, length: bytes };
    this.#send(request, [first, length], ({ data }) => {
      for (let at = 0; at < bytes; at += BLOCK_BYTES) {
        const wanted = this.content.subarray(offset + at, offset + at + BLOCK_BYTES);
        if (data.subarray(at, at + BLOCK_BYTES).equals(wanted)) continue;
        const block = first + at / BLOCK_BYTES;
        this.#fault(`block ${block} reads ${data.readUInt32BE(at)}, not ${wanted.readUInt32BE(0)}`);
        return;
      }
    });
  }

  #write(first: number, length: number): void {
    const random = this.#random;
    const [offset, bytes] = [first * BLOCK_BYTES, length * BLOCK_BYTES];
    const isZero = random.chance(0.15);
    const data = Buffer.alloc(bytes);
    this.#stamp += 1;
    if (!isZero) for (let at = 0; at < bytes; at += 4) data.writeUInt32BE(this.#stamp, at);
    const flags =
      (random.chance(0.15) ? FLAG.fua : 0) | (isZero && random.chance(0.5) ? FLAG.noHole : 0);
    const what = isZero ? { command: COMMAND.writeZeroes } : { command: COMMAND.write, data };
    this.#send({ ...what, flags, offset, length: bytes }, [first, length], () => {
      data.copy(this.content, offset);
    });
  }

  #send(
    request: Parameters<ModelClient['send']>[0],
    [first, length]: readonly [number, number],
    done: (reply: ModelReply) => void,
  ): void {
    const client = this.#client;
    for (let block = first; block < first + length; block += 1) this.#busy.add(block);
    this.#underWay += 1;
    this.requests += 1;
    client.send(request, (reply) => {
      for (let block = first; block < first + length; block += 1) this.#busy.delete(block);
      this.#underWay -= 1;
      if (reply.error === 0) done(reply);
      else this.#fault(`command ${request.command} at block ${first} failed: ${reply.error}`);
    });
  }

  #fault(words: string): void {
    this.faults.push(`${(this.#world.nowMs / 1000).toFixed(3)} s: ${words}`);
  }
}

/**
 * Flushes, reads all that the user has written, and takes the power of the disk: what the medium
 * holds is compared, and nothing else. Resolves to what was wrong, null for nothing.
 */
export async function endOfUse(
  world: World,
  user: BlockUser,
  { lateMs = 0 }: { readonly lateMs?: number } = {},
): Promise<string | null> {
  user.flush();
  await world.when(() => user.isQuiet, 120_000);
  if (lateMs > 0) await world.pass(lateMs);
  user.readAll();
  await world.when(() => user.isQuiet, 120_000);
  world.disk.powerLoss(() => false);
  const medium = world.disk.read(0, world.disk.sizeBytes);
  if (!medium.equals(user.content)) user.faults.push('the medium is not what was written');
  await world.end({ force: true });
  return [...user.faults, ...world.faults].slice(0, 3).join('; ') || null;
}
